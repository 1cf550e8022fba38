"""Parts of the programs that stand in for NVIDIA's models. They note what they are asked for in ``asked``."""

WAVEGLOW_METHODS = """        self.weight = torch.nn.Parameter(torch.ones(1))
    def forward(self, given):
        mel, audio = given
        asked.append((mel.shape, audio.shape))
        return self.weight * audio.mean()
    @staticmethod
    def remove_weightnorm(model):
        asked.append("fused")
        return model
"""
"Of a WaveGlow, from the end of its __init__ on."
