"""A receiver for varved devices, written from docs/wire.md and docs/segment.md alone; see README.md."""
