"""Whose noise a round has."""

from typing import Literal

Mode = Literal["distributed", "central"]
