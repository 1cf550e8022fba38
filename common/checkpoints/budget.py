"""A limit on what reading a checkpoint may take, so that a small file cannot take the machine down."""

import time
from typing import BinaryIO

MEMORY, MEMORY_PER_BYTE = 2**28, 16
"Bytes that the objects beside the tensors may take: for any file, and for each byte of it."
VIEWS_PER_BYTE = 4
"Bytes of tensors for each byte of the file. Tensors may share their storage, and few do."
SECONDS, BYTES_PER_SECOND = 30.0, 2e7
"Seconds of this thread's own time, without waiting for the disk: for any file, and more for larger ones."
INSTRUCTION, ENTRY = 150, 100
"About the most bytes that one instruction of a pickle takes, and the bytes of an entry of a dict."
LOOKS = 1000
"Instructions from one look at the clock to the next."


class RefusedError(Exception):
    """The file is more than data: it would run code, or take more memory or time than its size allows."""


class Budget:
    """What is left for a file of ``size`` bytes. All methods raise ``RefusedError`` when it is used up."""

    def __init__(self, size: int):
        self.size = size
        self.storages = size
        self.tensors = VIEWS_PER_BYTE * size + 2**20
        self.memory = MEMORY + MEMORY_PER_BYTE * size
        self.deadline = time.thread_time() + SECONDS + size / BYTES_PER_SECOND
        self.calls = 0

    def spend(self, memory: int) -> None:
        """Bytes for objects other than tensors."""
        self.memory -= memory
        if self.memory < 0:
            raise RefusedError("reading it takes more memory than a file of its size needs")
        self.calls += 1
        if self.calls % LOOKS == 0 and time.thread_time() > self.deadline:
            raise RefusedError("reading it takes more time than a file of its size needs")

    def spend_storage(self, size: int) -> None:
        """Bytes of a storage, all of which are in the file. ValueError where they are not."""
        self.storages -= size
        if self.storages < 0:
            raise ValueError("tensors larger than the file, so it is truncated, or claims more than it has")

    def spend_tensor(self, size: int) -> None:
        """Bytes of a tensor, which may share its storage with others."""
        self.tensors -= size
        if self.tensors < 0:
            raise RefusedError("so many tensors share one storage that they are much larger than the file")
        self.spend(INSTRUCTION)


class Metered:
    """A file that is read at the expense of a budget, and never asked for more than it has."""

    def __init__(self, file: BinaryIO, budget: Budget):
        self.file = file
        self.budget = budget

    def read(self, count: int) -> bytes:
        # Otherwise Python would allocate that much memory first.
        if count > 2**20 and count > self.budget.size - self.file.tell():
            raise EOFError("more than the file has")
        self.budget.spend(INSTRUCTION)
        return self.file.read(count)

    def readline(self) -> bytes:
        self.budget.spend(INSTRUCTION)
        return self.file.readline()
