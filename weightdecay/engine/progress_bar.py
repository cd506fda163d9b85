"""The bar that says how far a run is, and how long it still takes."""

from typing import Any


def bar(total: int, unit: str, *, shown: bool, done: int = 0) -> Any:
    """Bar of a run, for a terminal or a notebook.

    Args:
      total: What there is to do.
      unit: Of that, in words.
      shown: Whether anybody sees it.
      done: How much of it lies behind already.

    Returns:
      A tqdm bar; ``with`` closes it.
    """
    from tqdm import tqdm

    counted = f"{{n_fmt}}/{{total_fmt}} {unit}, {{elapsed}} gone, {{remaining}} left"
    shape = f"{{desc}} {{percentage:3.0f}}% |{{bar:30}}| {counted}"
    return tqdm(total=total, initial=done, disable=not shown, desc="training", unit_scale=True, bar_format=shape)
