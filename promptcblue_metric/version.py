"""The one place the version is written; signatures and package metadata read it."""

VERSION = "0.1.0"
