"""Videos in and out, by exact frame number and in constant memory.

with open_video("clip.mp4") as video:
    first = video[0]
    for frame in video.frames(backwards=True):
        ...
"""

from media.color import Frame
from media.info import Budget, VideoInfo
from media.reader import VideoReader, open_video
from media.writer import VideoWriter

__all__ = ["Budget", "Frame", "VideoInfo", "VideoReader", "VideoWriter", "open_video"]
