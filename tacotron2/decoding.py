"""Free decoding: each step of the decoder gets the frames of the step before, until every clip has ended.

Shapes: B clips, S steps, r frames a step, T frames, N text symbols, E encoder channels.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from common.layers.matmul import constant_linear
from tacotron2.attention import Memory
from tacotron2.decoder import AttentionState, Decoded, Decoder, DecoderState

STEPS_BETWEEN_LOOKS = 16
"""Steps between two checks of whether all clips have ended; at each the host waits for the card. Steps beyond the end
are cut off."""

Made = tuple[Tensor, Tensor, Tensor]
"What a step makes: frames [B, r * n_mel], gate [B], attention weights [B, N]."


class State(NamedTuple):
    """What is carried from step to step."""

    frames: Tensor
    "[B, r * n_mel] float32, of the step before."
    attention: AttentionState
    decoder: DecoderState
    taken: Tensor
    "[B], the steps of each clip."
    stopped: Tensor
    "[B] bool, whether the gate has fired."
    running: Tensor
    "[B] bool"

    def tensors(self) -> list[Tensor]:
        return [self.frames, *self.attention, *self.decoder, self.taken, self.stopped, self.running]

    def copy(self) -> "State":
        frames, attention, decoder, *others = self
        copies = AttentionState(*map(torch.clone, attention)), DecoderState(*map(torch.clone, decoder))
        return State(frames.clone(), *copies, *map(torch.clone, others))


class Text(NamedTuple):
    """What the decoder attends to, and how much it may say."""

    values: Tensor
    "[B, N, E]"
    memory: Memory
    limits: Tensor | int
    "Steps: of each clip [B], or of all."

    def tensors(self) -> list[Tensor]:
        limits = [self.limits] if isinstance(self.limits, Tensor) else []
        return [self.values, self.memory.keys, self.memory.padding, self.memory.kernel, *limits]


Steps: TypeAlias = Callable[[list[Tensor], State], tuple[list[Made], State]]
"Takes as many steps as there are masks [2, B, prenet_dim]."
Linears: TypeAlias = Sequence[Callable[[Tensor], Tensor]]
"The layers of ``Decoder.frame_by_frame`` as functions."
MakeSteps: TypeAlias = Callable[[Text], Steps]


def infer(
    decoder: Decoder, values: Tensor, padding: Tensor, seeds: list[int], make_steps: MakeSteps | None = None
) -> tuple[Decoded, Tensor, Tensor]:
    """Feed each step's frames back as the next one's input, until every clip's gate has fired.

    values [B, N, E], padding [B, N], a seed for the prenet's dropout of each clip; ``make_steps`` as of ``decode``.
    Returns what was decoded, of which the first ``lengths`` frames are a clip's own; ``lengths`` [B], which include all
    frames of the step at which the gate fired; and [B] bool, whether it fired before max_decoder_steps.
    """
    masks_of_steps = islice(decoder.prenet.draw_masks(seeds, like=values), decoder.max_decoder_steps)
    return decode(decoder, values, padding, masks_of_steps, decoder.max_decoder_steps, make_steps)


def decode(
    decoder: Decoder,
    values: Tensor,
    padding: Tensor,
    masks_of_steps: Iterable[Tensor],
    limits: Tensor | int,
    make_steps: MakeSteps | None = None,
) -> tuple[Decoded, Tensor, Tensor]:
    """The same with given masks [2, B, prenet_dim], step after step, and at most ``limits`` steps for each clip.

    ``make_steps``: the ``RecordedSteps`` of this decoder, if it will decode again.
    """
    text = Text(values, decoder.attention_layer.prepare(values, padding), limits)
    take_steps = (make_steps or partial(steps_of_decoder, decoder))(text)
    state = start(decoder, values)
    steps: list[Made] = []
    at_once = 1 if values.is_cpu else STEPS_BETWEEN_LOOKS
    masks_of_steps = iter(masks_of_steps)
    while masks := list(islice(masks_of_steps, at_once)):
        made, state = take_steps(masks, state)
        steps += made
        if len(masks) == at_once and not state.running.any():
            break
    mel, gate, alignments = (torch.stack(each, dim=1) for each in zip(*steps[: int(state.taken.max())]))
    lengths = state.taken * decoder.n_frames_per_step
    return Decoded(decoder.in_frames(mel), gate, alignments), lengths, state.stopped.clone()


def start(decoder: Decoder, values: Tensor) -> State:
    """Before the first step, for values [B, N, E]."""
    frames = values.new_zeros(len(values), decoder.n_frames_per_step * decoder.n_mel_channels, dtype=torch.float32)
    taken = torch.zeros(len(values), dtype=torch.long, device=values.device)
    stopped = torch.zeros_like(taken, dtype=torch.bool)
    return State(frames, *decoder.initial_state(values), taken, stopped, ~stopped)


def steps_of_decoder(decoder: Decoder, text: Text) -> Steps:
    """A decoder's steps for a text."""
    return partial(take_steps, decoder, constant_linears(decoder, text.values.dtype), text)


def constant_linears(decoder: Decoder, dtype: torch.dtype) -> Linears:
    """The decoder's linear layers with its weights as they are now."""
    return [constant_linear(*layer) for layer in decoder.frame_by_frame(dtype)]


def take_steps(
    decoder: Decoder, linears: Linears, text: Text, masks_of_steps: list[Tensor], state: State
) -> tuple[list[Made], State]:
    """As many steps as there are masks [2, B, prenet_dim]."""
    frames, attention, states, taken, stopped, running = state
    steps = []
    for masks in masks_of_steps:
        frames, gate, attention, states = decoder.step(
            frames.to(text.values.dtype), masks, attention, states, text.memory, text.values, linears
        )
        steps.append((frames, gate, attention.weights[:, 0]))
        taken = taken + running
        stopped = stopped | running & (torch.sigmoid(gate) > decoder.gate_threshold)
        running = ~stopped & (taken < text.limits)
    return steps, State(frames, attention, states, taken, stopped, running)
