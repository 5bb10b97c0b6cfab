"""Random noise, the paper's control.

Drawn pixel by pixel it is finer and weaker than searched noise: patches (`lsp.py`), which nobody searched for either, say more of what the
search adds.
"""

from __future__ import annotations

import numpy as np


def random_noise(*, rows: int, epsilon: int, seed: int, size: int = 112) -> np.ndarray:
    """int8 (rows, 3, size, size) in 1/255: uniform whole numbers in [−epsilon, epsilon] (Huang et al., section 4.1)."""
    generator = np.random.default_rng((seed, 0x5EED))
    return generator.integers(-epsilon, epsilon, (rows, 3, size, size), dtype=np.int8, endpoint=True)
