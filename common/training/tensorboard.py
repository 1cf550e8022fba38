"""TensorBoard's logs of a training."""

import logging
from collections.abc import Callable

from torch.utils.tensorboard import SummaryWriter

from common import distributed

log = logging.getLogger(__name__)


class TensorBoard:
    """TensorBoard's logs, written by the first process. If writing fails, it stops with a warning."""

    def __init__(self, folder: str):
        self.writer: SummaryWriter | None = None
        if folder and distributed.ranks().rank == 0:
            self.writer = self._try(SummaryWriter, folder)

    def write(self, action: Callable, *args: object) -> None:
        """``action(writer, *args)``, if there is a writer."""
        if self.writer:
            self._try(action, self.writer, *args)

    def _try(self, action: Callable, *args: object) -> SummaryWriter | None:
        try:
            return action(*args)
        except OSError as error:
            log.warning("no more TensorBoard logs: %s", error.strerror)
            self.writer = None
            return None
