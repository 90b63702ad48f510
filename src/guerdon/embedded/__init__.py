"""Embedded MongoDB: find a mongod, start it as a replica set of one member, and stop it with its parent process.

`guerdon up` needs no database administrator. This package finds a mongod binary, runs it on a loopback port with its files in the data directory, and
returns when it is a writable primary. (Transactions need a replica set; one member is the smallest.)

Guarantees:

* **One owner.** `DataDirLock` locks the directory and a file in it. The kernel releases the locks when their holder ends for any reason, so no stale
  lock remains. The caller of `start` must hold it. The file also contains the pid, command and URLs of the holder; deleting it frees nothing.
* **One database after another.** `MongoSupervisor` restarts a mongod that has ended, on the same port, and gives up after three failures in a row.
* **No orphan.** The kernel sends SIGTERM to mongod when its parent ends (Linux). Linux ties this to the *thread* that forked, so call `start` from a
  thread that lives as long as the process: the main thread, not a thread of a pool.
* **No foreign process is signalled.** A process that this one did not start receives a signal only if its command line is that of a mongod with the same
  dbpath. The pid in an old mongod.lock is only a hint, because it may have been reused.
* **Same data with any port and any path.** The port is remembered. If it is in use, another port is taken and the configuration of the replica set is
  changed accordingly. The data directory can be moved or copied while mongod is stopped.

mongod listens on 127.0.0.1 without authentication: every local user of the machine can connect to it. It is meant for the machine of a developer or
for a container with a single purpose. Otherwise, set GUERDON_MONGODB_URL to a database with access control.

Files in the data directory: `guerdon.lock`, `mongod.json` (the remembered port), `mongod.log` (one old log is kept as `mongod.log.1`), `mongodb/` (the
data) and, only if the system lacks libcurl, `mongod-libs/`.
"""

from guerdon.embedded.binary import Mongod, find_mongod
from guerdon.embedded.datadir import LOCK_FILE_DELETED, DataDirLock, busy, files_of, has_database, holder
from guerdon.embedded.host import die_with_parent
from guerdon.embedded.mongod import EmbeddedMongo, start
from guerdon.embedded.supervisor import MongoSupervisor

__all__ = [
    "LOCK_FILE_DELETED",
    "DataDirLock",
    "EmbeddedMongo",
    "MongoSupervisor",
    "Mongod",
    "busy",
    "die_with_parent",
    "files_of",
    "find_mongod",
    "has_database",
    "holder",
    "start",
]
