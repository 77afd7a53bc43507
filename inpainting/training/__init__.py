"""Train inpainters: a generator against a discriminator that looks at patches of whole clips.

    recipe = load_recipe("hq_small", clips=["/data/clips"])
    train(recipe, Path("runs/hq_small"))

Needs torch, torchvision, numpy, Pillow and safetensors; PyYAML for the recipes that come with it.
"""

from inpainting.training.config import Recipe, build_recipe, list_recipes, load_recipe, read_values
from inpainting.training.loop import train

__all__ = ["Recipe", "build_recipe", "list_recipes", "load_recipe", "read_values", "train"]
