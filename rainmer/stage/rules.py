"""What a network demands of its input: sizes, and numbers of frames."""

from __future__ import annotations

from dataclasses import dataclass

from rainmer.errors import SpecError

__all__ = ["InputRules"]


@dataclass(frozen=True)
class InputRules:
    """Which float batches (B, 3, H, W) a network takes; by default any.

    Attributes:
        multiple: Both sides must be multiples of it, in pixels.
        fixed_hw: The only (height, width) that it takes, in pixels; None where a side is free.
        batch: The only B that it takes; None: any.

    Raises:
        SpecError: A number is not a whole one of at least 1.

    Example:
        >>> InputRules(multiple=8, fixed_hw=(128, None)).padded_hw(100, 50)
        (128, 56)
    """

    multiple: int = 1
    fixed_hw: tuple[int | None, int | None] = (None, None)
    batch: int | None = None

    def __post_init__(self) -> None:
        for number in (self.multiple, *self.fixed_hw, self.batch):
            if number is not None and (not isinstance(number, int) or number < 1):
                raise SpecError(
                    f"sizes and batches of a network are whole numbers from 1, not {number!r}"
                )

    @property
    def is_fixed(self) -> bool:
        """Whether a side is fixed."""
        return self.fixed_hw != (None, None)

    def padded_hw(self, height: int, width: int) -> tuple[int, int]:
        """Return the size to pad a frame to, which is not larger than a fixed side."""
        padded = [side + -side % self.multiple for side in (height, width)]
        return (self.fixed_hw[0] or padded[0], self.fixed_hw[1] or padded[1])

    def describe(self) -> str:
        """Return the fixed size as width x height."""
        height, width = (side or "any" for side in self.fixed_hw)
        return f"{width}x{height}"
