"""A stand-in for the Slicer application around the real MRML libraries: scripted modules run on it unchanged. See README.md."""

from __future__ import annotations

from slicer_host.host import Host, LoadedModule, start

__all__ = ["Host", "LoadedModule", "start"]
