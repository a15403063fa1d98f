"""How the web page is served."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from FewShotSegLib.app.access import check_access
from FewShotSegLib.errors import ConfigError

SAMPLE_SHAPE = (36, 256, 256)
SMALL_SAMPLE_SHAPE = (24, 128, 128)


@dataclass(frozen=True)
class AppConfig:
    """Where the page is served, to whom, and how much it may use.

    Args:
        host, port: where to listen; port 0 takes a free one.
        token: what opens the page; "" makes one, which is refused beyond loopback.
        certificate, key: PEM files for https.
        sessions: how many pages may be open at once; each is a process.
        idle_minutes: after how long without any traffic a session is closed.
        upload_mb: largest upload, and largest content of a zip, in MB.
        checkpoint, device: of the segmenter; checkpoint "" is the default one.
        runner: where the model runs: in a process of its own, or in a thread of the session.
        sample_shape: voxels (z, y, x) of the sample case.

    Raises:
        ConfigError: a limit that is not positive, or see `access.check_access`.
    """

    host: str = "127.0.0.1"
    port: int = 8085
    token: str = ""
    certificate: Path | None = None
    key: Path | None = None
    sessions: int = 4
    idle_minutes: float = 30.0
    upload_mb: float = 2048.0
    checkpoint: str = ""
    device: str = "auto"
    runner: Literal["process", "thread"] = "process"
    sample_shape: tuple[int, int, int] = field(default=SAMPLE_SHAPE)

    def __post_init__(self) -> None:
        for name in ("sessions", "idle_minutes", "upload_mb"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} = {getattr(self, name)}", "more than 0")
        if self.runner not in ("process", "thread"):
            raise ConfigError(f"runner = {self.runner!r}", "process or thread")
        check_access(self.host, self.token, self.certificate, self.key)
        if not self.token:
            object.__setattr__(self, "token", secrets.token_urlsafe(24))

    @property
    def https(self) -> bool:
        """Whether the page is served encrypted."""
        return self.certificate is not None
