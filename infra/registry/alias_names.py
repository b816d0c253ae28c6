"""The aliases of a project's model: to deploy is to move one."""

from typing import Final

CHAMPION: Final = "champion"
PREVIOUS: Final = "previous"
CHALLENGER: Final = "challenger"
CANARY: Final = "canary"
