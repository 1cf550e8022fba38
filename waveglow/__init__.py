"""WaveGlow (Prenger et al. 2018, arXiv:1811.00002): a flow that turns mel spectrograms into audio."""

import common  # noqa: F401 - before torch, see there
