package devstack_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// postgresArchive builds what embedded-postgres downloads, a .jar (zip) around a .txz, of programs that call the installed
// ones.
func postgresArchive(t *testing.T, binDir string) []byte {
	t.Helper()
	var jar bytes.Buffer
	archive := zip.NewWriter(&jar)
	entry, err := archive.Create("postgres-linux-x86_64.txz")
	require.NoError(t, err)
	_, err = entry.Write(xz(programs(t, binDir)))
	require.NoError(t, err)
	require.NoError(t, archive.Close())
	return jar.Bytes()
}

func programs(t *testing.T, binDir string) []byte {
	t.Helper()
	var unpacked bytes.Buffer
	archive := tar.NewWriter(&unpacked)
	for _, program := range []string{"postgres", "initdb", "pg_ctl"} {
		script := fmt.Sprintf("#!/bin/sh\nexec '%s' \"$@\"\n", filepath.Join(binDir, program))
		require.NoError(t, archive.WriteHeader(&tar.Header{Name: "bin/" + program, Mode: 0o755, Size: int64(len(script))}))
		_, err := archive.Write([]byte(script))
		require.NoError(t, err)
	}
	require.NoError(t, archive.Close())
	return unpacked.Bytes()
}

// xz wraps data in an .xz stream without compressing it (The .xz File Format 1.2.1, https://tukaani.org/xz/xz-file-format.txt).
func xz(data []byte) []byte {
	flags := []byte{0, 1} // check: CRC32
	out := append([]byte{0xfd, '7', 'z', 'X', 'Z', 0}, withCRC(flags)...)

	// The only filter is LZMA2 (0x21) with a dictionary of 64 KiB (8); sizes are not stated.
	block := withCRC([]byte{2, 0, 0x21, 1, 8, 0, 0, 0})
	control := byte(1) // uncompressed chunk, dictionary reset; further ones are 2, without reset
	for rest := data; len(rest) > 0; control = 2 {
		chunk := rest[:min(len(rest), 1<<16)]
		rest = rest[len(chunk):]
		block = binary.BigEndian.AppendUint16(append(block, control), uint16(len(chunk)-1))
		block = append(block, chunk...)
	}
	block = append(block, 0)
	unpadded := len(block) + crc32.Size
	block = binary.LittleEndian.AppendUint32(padded(block), crc32.ChecksumIEEE(data))

	index := []byte{0, 1}
	index = binary.AppendUvarint(index, uint64(unpadded))
	index = binary.AppendUvarint(index, uint64(len(data)))
	index = withCRC(padded(index))

	footer := append(binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1)), flags...)
	out = append(append(out, block...), index...)
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(footer))
	return append(append(out, footer...), 'Y', 'Z')
}

func withCRC(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b)) }

func padded(b []byte) []byte { return append(b, make([]byte, (4-len(b)%4)%4)...) }
