"""Free decoding: each step of the decoder gets the frames of the step before, until every clip has ended.

Shapes: B clips, S steps, r frames a step, T frames, N text symbols, E encoder channels.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from common.cuda_graph import recorded
from common.layers.matmul import constant_linear
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


Steps = Callable[[list[Tensor], State], tuple[list[Made], State]]
"Takes as many steps as there are masks [2, B, prenet_dim]."


def infer(decoder: Decoder, values: Tensor, padding: Tensor, seeds: list[int]) -> tuple[Decoded, Tensor, Tensor]:
    """Feed each step's frames back as the next one's input, until every clip's gate has fired.

    values [B, N, E], padding [B, N], a seed for the prenet's dropout of each clip. Returns what
    was decoded, of which the first ``lengths`` frames are a clip's own; ``lengths`` [B],
    which include all frames of the step at which the gate fired; and [B] bool, whether it fired
    before max_decoder_steps.
    """
    masks_of_steps = islice(decoder.prenet.draw_masks(seeds, like=values), decoder.max_decoder_steps)
    return decode(decoder, values, padding, masks_of_steps, decoder.max_decoder_steps)


def decode(
    decoder: Decoder, values: Tensor, padding: Tensor, masks_of_steps: Iterable[Tensor], limits: Tensor | int
) -> tuple[Decoded, Tensor, Tensor]:
    """The same with given masks [2, B, prenet_dim], step after step, and at most ``limits`` steps for each clip."""
    take_steps = steps_of_decoder(decoder, values, padding, limits)
    state = start(decoder, values)
    steps: list[Made] = []
    at_once = 1 if values.is_cpu else STEPS_BETWEEN_LOOKS
    masks_of_steps = iter(masks_of_steps)
    while masks := list(islice(masks_of_steps, at_once)):
        if values.is_cuda and len(steps) == at_once == len(masks):
            take_steps = as_graph(take_steps, masks, state)
        made, state = take_steps(masks, state)
        steps += made
        if len(masks) == at_once and not state.running.any():
            break
    mel, gate, alignments = (torch.stack(each, dim=1) for each in zip(*steps[: int(state.taken.max())]))
    return Decoded(decoder.in_frames(mel), gate, alignments), state.taken * decoder.n_frames_per_step, state.stopped


def start(decoder: Decoder, values: Tensor) -> State:
    """Before the first step, for values [B, N, E]."""
    frames = values.new_zeros(len(values), decoder.n_frames_per_step * decoder.n_mel_channels, dtype=torch.float32)
    taken = torch.zeros(len(values), dtype=torch.long, device=values.device)
    stopped = torch.zeros_like(taken, dtype=torch.bool)
    return State(frames, *decoder.initial_state(values), taken, stopped, ~stopped)


def steps_of_decoder(decoder: Decoder, values: Tensor, padding: Tensor, limits: Tensor | int) -> Steps:
    """A decoder's steps for values [B, N, E], padding [B, N] and at most ``limits`` steps for each clip."""
    memory = decoder.attention_layer.prepare(values, padding)
    linears = [constant_linear(*layer) for layer in decoder.frame_by_frame(values.dtype)]

    def take_steps(masks_of_steps: list[Tensor], state: State) -> tuple[list[Made], State]:
        frames, attention, states, taken, stopped, running = state
        steps = []
        for masks in masks_of_steps:
            frames, gate, attention, states = decoder.step(
                frames.to(values.dtype), masks, attention, states, memory, values, linears
            )
            steps.append((frames, gate, attention.weights[:, 0]))
            taken = taken + running
            stopped = stopped | running & (torch.sigmoid(gate) > decoder.gate_threshold)
            running = ~stopped & (taken < limits)
        return steps, State(frames, attention, states, taken, stopped, running)

    return take_steps


def as_graph(take_steps: Steps, masks: list[Tensor], state: State) -> Steps:
    """``take_steps`` as a CUDA graph for as many masks as these. It goes on from this state, whatever it is given."""
    given, state = torch.stack(masks), state.copy()

    def work() -> list[Tensor]:
        made, after = take_steps(list(given), state)
        for old, new in zip(state.tensors(), after.tensors()):
            old.copy_(new)
        return [torch.stack(each) for each in zip(*made)]

    replay = recorded(work)

    def take_recorded_steps(masks: list[Tensor], _: State) -> tuple[list[Made], State]:
        if len(masks) < len(given):
            return take_steps(masks, state)
        torch.stack(masks, out=given)
        return list(zip(*(each.clone() for each in replay()))), state

    return take_recorded_steps
