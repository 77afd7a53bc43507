"""Train trackers: recipes for every stage, one loop for all of them.

    recipe = load_recipe("continue_small", data=[("stills", "/data/stills")])
    train(recipe, Path("runs/small"))

Needs torch, torchvision, numpy, Pillow and safetensors; PyYAML for the recipes that come with it.
"""

from trackers.training.config import Recipe, build_recipe, list_recipes, load_recipe, read_values
from trackers.training.loop import train

__all__ = ["Recipe", "build_recipe", "list_recipes", "load_recipe", "read_values", "train"]
