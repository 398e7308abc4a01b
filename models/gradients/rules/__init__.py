"""How gradients go back through each operator, a module for each family."""

from collections.abc import Mapping
from types import MappingProxyType

from models.gradients.rules import (
    convolution,
    elementwise,
    layout,
    linear,
    normalization,
    pooling,
    recurrent,
    reductions,
)
from models.gradients.rules.rule import Rule

__all__ = ["NO_GRADIENT", "RULES", "Rule"]

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **linear.RULES,
        **convolution.RULES,
        **pooling.RULES,
        **normalization.RULES,
        **elementwise.RULES,
        **reductions.RULES,
        **layout.RULES,
        **recurrent.RULES,
    }
)

NO_GRADIENT = frozenset(
    [
        *("And", "ArgMax", "ArgMin", "Ceil", "Constant", "ConstantOfShape", "Equal", "Floor", "Greater"),
        *("GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "OneHot", "Or", "Range", "Round"),
        *("Shape", "Sign", "Size", "Xor"),
    ]
)
"""Operators that are constant almost everywhere: no gradient goes back, and none is missing."""
