"""``nn.ModuleList`` with the type of what it holds, for type checkers; at run time it is ``nn.ModuleList`` itself."""

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Layer = TypeVar("Layer", bound=nn.Module)

    class ModuleList(nn.ModuleList, Generic[Layer]):
        """Layers of one class."""

        def __init__(self, modules: Iterable[Layer] | None = None): ...

        @overload
        def __getitem__(self, idx: slice) -> "ModuleList[Layer]": ...

        @overload
        def __getitem__(self, idx: int) -> Layer: ...

        def __getitem__(self, idx: int | slice) -> Any: ...

        def __iter__(self) -> Iterator[Layer]: ...

else:
    ModuleList = nn.ModuleList
