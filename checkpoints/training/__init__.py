"""How weights come about: what trackers and inpainters share when they are trained.

Read `runs.py` first: a run from its first step to its files. Needs torch, torchvision, numpy,
Pillow and safetensors; PyYAML reads recipes where it is installed.
"""
