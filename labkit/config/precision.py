"""Precision: what each value of the key means, by the names that torch gives its dtypes. torch is not imported."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["32-true", "bf16-true", "bf16-mixed", "16-mixed", "16-true"]

_FULL, _BF16, _HALF = "float32", "bfloat16", "float16"


@dataclass(frozen=True, kw_only=True)
class Dtypes:
    """The dtypes of a run: that of its weights, and that its layers compute in. Both are names of attributes of
    ``torch``."""

    weights: str
    compute: str

    @property
    def mixed(self) -> bool:
        """Layers compute on copies of the weights with fewer bits (autocast)."""
        return self.weights != self.compute

    @property
    def autocast(self) -> str | None:
        """The dtype that autocast computes in; None where nothing is cast."""
        return self.compute if self.mixed else None

    @property
    def full(self) -> bool:
        """Everything in 32 bits."""
        return self.weights == self.compute == _FULL

    @property
    def bf16(self) -> bool:
        """It computes in bfloat16, which older GPUs do not have."""
        return self.compute == _BF16

    @property
    def half(self) -> bool:
        """It computes in float16, which ends at 65504."""
        return self.compute == _HALF

    @property
    def weights_in_16_bits(self) -> bool:
        """Every update is rounded to 16 bits; Lightning casts the whole model."""
        return self.weights != _FULL

    @property
    def weight_bytes(self) -> int:
        """Bytes of one weight, of its gradient, and of each number of AdamW's state."""
        return 2 if self.weights_in_16_bits else 4

    @property
    def loss_scaled(self) -> bool:
        """The loss is scaled, so that small gradients do not vanish in float16; weights in float16 take no scaler."""
        return self.mixed and self.half


DTYPES: dict[str, Dtypes] = {
    "32-true": Dtypes(weights=_FULL, compute=_FULL),
    "bf16-true": Dtypes(weights=_BF16, compute=_BF16),
    "bf16-mixed": Dtypes(weights=_FULL, compute=_BF16),
    "16-mixed": Dtypes(weights=_FULL, compute=_HALF),
    "16-true": Dtypes(weights=_HALF, compute=_HALF),
}
"""By the value of ``precision``."""
