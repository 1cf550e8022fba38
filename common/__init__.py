"""What WaveGlow and Tacotron2 share: audio, configuration, devices, the training loop.

Imported before torch, which from 2.5 on loads an installed torch_npu by itself, and fails with it. common/device.py
loads it where an NPU is wanted, and says what is wrong.
"""

import os

os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
