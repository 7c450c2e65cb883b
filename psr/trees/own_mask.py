"""A mask that is ours, in a form that a model of transformers hands on to all its layers as it is.

Transformers makes a mask for every kind of layer, unless it is given one of four dimensions already: a tensor, or a
BlockMask of FlexAttention. So an object that claims to be the latter reaches every attention function unchanged, also
through models that hand on no arguments of ours. Knows nothing of what a mask says.
"""

from torch.nn.attention.flex_attention import BlockMask


class OwnMask(BlockMask):
    """Subclasses hold what their attention function needs; nothing of BlockMask itself is there."""

    def __init__(self) -> None:
        pass

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Of four dimensions, which is all that is asked."""
        return (1, 1, 1, 1)

    @property
    def ndim(self) -> int:
        return 4
