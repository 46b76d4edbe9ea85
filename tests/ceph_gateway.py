"""A real S3 server for tests: Ceph's gateway over one monitor and one OSD, on loopback, in one folder."""

import json
import os
import subprocess
import uuid
from pathlib import Path

from programs import answers, free_port, wait_until

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph")
KEY, SECRET = "testaccess", "testsecret123"

CONF = """
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}/0
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
mon allow pool size one = true
osd crush chooseleaf type = 0
mon data avail crit = 1
mon data avail warn = 2
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
log file = {folder}/run/$name.log
mon cluster log file = {folder}/run/cluster.log
crash dir = {folder}/run

[mon.a]
host = localhost
mon data = {folder}/mon
mon addr = v2:127.0.0.1:{mon_port}/0

[osd]
osd data = {folder}/osd
osd objectstore = bluestore
bluestore block size = 8589934592
bluestore cache autotune = false
bluestore cache size = 67108864
# a killed gateway's watch would hold up the next bucket creation for 30 s
osd client watch timeout = 3

[client.rgw.a]
host = localhost
# the gateway asks for a secure monitor connection, which authentication "none" cannot give: it would wait 300 s
ms mon client mode = crc
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port}
"""


class CephGateway:
    """``endpoint`` answers S3 after ``create``; keys are enforced, the cluster behind it trusts this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._fsid, self._osd = str(uuid.uuid4()), str(uuid.uuid4())
        self._mon_port = free_port()
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def create(self) -> None:
        """Make the file systems and the user, start everything, wait until S3 answers: 15 s on two cores."""
        for name in ("mon", "osd", "run", "rgw"):
            (self.folder / name).mkdir(parents=True)
        conf = CONF.format(folder=self.folder, fsid=self._fsid, port=self.port, mon_port=self._mon_port)
        (self.folder / "ceph.conf").write_text(conf)
        monmap = str(self.folder / "monmap")
        self._call(
            "monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", f"[v2:127.0.0.1:{self._mon_port}]", monmap
        )
        self._call("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap)
        self._start("ceph-mon", "-i", "a")
        self._call("ceph", "osd", "new", self._osd)
        self._call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", self._osd)
        self._start_osd()
        self._create_user()
        self.start_gateway()

    def start(self) -> None:
        """Start everything again after ``kill``."""
        self._start("ceph-mon", "-i", "a")
        self._call("ceph", "osd", "down", "0")  # else the gateway waits for the dead OSD's grace period
        self._start_osd()
        self.start_gateway()

    def start_gateway(self) -> None:
        self._start("radosgw", "-n", "client.rgw.a")
        wait_until(lambda: answers(self.endpoint), "radosgw", self._log)

    def kill(self) -> None:
        """kill -9 of all three daemons: the store as a whole crashes."""
        for name in ("radosgw", "ceph-osd", "ceph-mon"):
            self._kill(name)

    def kill_gateway(self) -> None:
        """kill -9 of the gateway alone."""
        self._kill("radosgw")

    def admin(self, *words: str) -> None:
        """``radosgw-admin``, for users and keys beside the one that tests have."""
        self._call("radosgw-admin", *words)

    def _create_user(self) -> None:
        """radosgw-admin now and then dies of a signal on a busy machine, before or after its work: ask, then repeat."""
        user = ("--uid=test", "--display-name=test", f"--access-key={KEY}", f"--secret-key={SECRET}")
        for _ in range(3):
            if self._run("radosgw-admin", "user", "create", *user).returncode == 0:
                return
            if self._run("radosgw-admin", "user", "info", "--uid=test").returncode == 0:
                return
        raise RuntimeError(f"radosgw-admin cannot make a user; see {self._log}")

    def _kill(self, name: str) -> None:
        if daemon := self._daemons.pop(name, None):
            daemon.kill()
            daemon.wait()

    def _start_osd(self) -> None:
        self._start("ceph-osd", "-i", "0")
        wait_until(self._osd_is_up, "ceph-osd", self._log)

    def _osd_is_up(self) -> bool:
        return json.loads(self._call("ceph", "osd", "stat", "--format", "json"))["num_up_osds"] == 1

    def _start(self, *command: str) -> None:
        with self._log.open("ab") as log:
            self._daemons[command[0]] = subprocess.Popen(
                [*command, "-f"], env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _call(self, *command: str) -> bytes:
        done = self._run(*command)
        done.check_returncode()
        return done.stdout

    def _run(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        with self._log.open("ab") as log:
            return subprocess.run(command, env=self._env, timeout=120, stdout=subprocess.PIPE, stderr=log)

    @property
    def _log(self) -> Path:
        return self.folder / "run" / "output.log"

    @property
    def _env(self) -> dict[str, str]:
        return {**os.environ, "LC_ALL": "C", "CEPH_CONF": str(self.folder / "ceph.conf")}
