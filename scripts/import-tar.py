#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
# Read a tar file from standard input and write its content, without the
# directory that everything is in, as a stream for "git fast-import": a kernel is
# 90,000 files, which need not go to the disk one by one.

import sys
import tarfile


def data(out, content):
    out.write(b"data %d\n" % len(content))
    out.write(content)
    out.write(b"\n")


def quoted(path):
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return b'"' + escaped.encode(errors="surrogateescape") + b'"'


def main():
    out = sys.stdout.buffer
    out.write(b"commit refs/import\ncommitter import <> 0 +0000\n")
    data(out, b"import")
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|*") as archive:
        for member in archive:
            path = member.name.removeprefix("./").partition("/")[2]
            if member.isfile():
                mode = b"100755" if member.mode & 0o100 else b"100644"
                content = archive.extractfile(member).read()
            elif member.issym():
                mode = b"120000"
                content = member.linkname.encode(errors="surrogateescape")
            elif member.isdir():
                continue
            else:
                sys.exit(f"{member.name}: not a file, directory or symlink")
            out.write(b"M %s inline %s\n" % (mode, quoted(path)))
            data(out, content)
            # It would remember all of them.
            archive.members = []


try:
    main()
except tarfile.TarError as error:
    sys.exit(f"not a tar file (plain, gzip, bzip2 or xz): {error}")
