"""Imported, SQLite waits for no disk in this process: what a killed process wrote is kept all the same.

Only a power cut could lose it, and no test cuts the power; at 5 to 12 ms a commit the disk cost minutes.
"""

import sqlite3

from sqlalchemy import event
from sqlalchemy.engine import Engine


@event.listens_for(Engine, "connect")
def _connected(connection: object, _: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")
