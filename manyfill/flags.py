"""Flags that several commands have."""

from typing import Annotated

from cyclopts import Parameter

Count = Annotated[int, Parameter(name=["--count", "-n"])]
Json = Annotated[bool, Parameter(name="--json")]
