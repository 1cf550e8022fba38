"""``apex.optimizers`` of Ascend's apex."""

import torch


class NpuFusedAdam(torch.optim.Adam):
    """Like the real one of no use without apex.amp."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, foreach=True)

    def step(self, closure=None):
        if not hasattr(self, "amp"):
            raise RuntimeError("apex.optimizers.NpuFusedAdam should be used with AMP.")
        for state in self.state.values():  # the real one counts in plain numbers
            state["step"] = torch.tensor(float(state["step"]))
        return super().step(closure)
