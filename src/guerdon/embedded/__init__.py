"""A mongod of our own: found or refused, started as a one-member replica set, and never left behind.

`guerdon up` on a laptop should need no database administrator. This module finds a mongod binary, runs it on a loopback
port with its files under one data directory, and returns once it is a writable primary (transactions need a replica
set, so one member is the smallest thing that works).

What it promises:

* **One owner.** `DataDirLock` is an flock: the kernel drops it when the holder dies, however it dies, so no stale lock
  is left to clean up. `start` expects the caller to hold it. The file also says who holds it and where that listens.
* **No orphan.** mongod gets SIGTERM from the kernel when its parent dies (Linux). Linux ties that to the *thread* that
  forked, so call `start` from a thread that lives as long as the process: the main thread, not a pool's worker.
* **No victim.** Before a signal goes to a process we did not start, its command line must say it is a mongod on our
  dbpath. The pid in a stale mongod.lock may belong to anybody by now, so it is only a hint.
* **Same data, any port, any path.** The port is remembered, but when somebody else has it by now, another is taken
  and the replica set's configuration follows. The data directory can be moved or copied while it is at rest.

mongod listens on 127.0.0.1 without authentication: every local user of the machine can reach it. It is meant for a
developer's machine or a single-purpose container; elsewhere, set GUERDON_MONGODB_URL to a database with access control.

The files, all under the data directory: `guerdon.lock`, `mongod.json` (the remembered port), `mongod.log` (one old log
is kept as `mongod.log.1`), `mongodb/` (the data) and, only where the system lacks libcurl, `mongod-libs/`.
"""

from guerdon.embedded.binary import Mongod, find_mongod
from guerdon.embedded.datadir import DataDirLock, holder
from guerdon.embedded.host import die_with_parent
from guerdon.embedded.mongod import EmbeddedMongo, start

__all__ = ["DataDirLock", "EmbeddedMongo", "Mongod", "die_with_parent", "find_mongod", "holder", "start"]
