"""Shared helpers are importable from every test folder; networks are tiny."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent / "models"))
torch.set_num_threads(1)  # tiny networks gain nothing from more, and lose much on a busy machine
