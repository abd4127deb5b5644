package initramfs_test

import (
	"bytes"
	"io/fs"
	"os/exec"
	"strings"
	"testing"

	"sekimori/vmm/initramfs"
)

func entries() []initramfs.Entry {
	return []initramfs.Entry{
		{Name: "dev", Mode: fs.ModeDir | 0o755},
		{Name: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1},
		{Name: "init", Mode: 0o755, Data: strings.NewReader("hello"), Size: 5},
		{Name: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Name: "sbin", Mode: fs.ModeSymlink | 0o777, Link: "dev"},
		{Name: "empty", Mode: 0o644},
	}
}

func TestWrite(t *testing.T) {
	var a, b bytes.Buffer
	if err := initramfs.Write(&a, entries()); err != nil {
		t.Fatal(err)
	}
	if err := initramfs.Write(&b, entries()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the same entries, other bytes")
	}
	if a.Len()%4 != 0 {
		t.Errorf("%d bytes; want a multiple of 4", a.Len())
	}
	want := []string{
		// magic, ino, mode, uid, gid, nlink, mtime, filesize, devs, rdevs, namesize, check
		"070701" + "00000001" + "000041ED" + "00000000" + "00000000" + "00000002" + "00000000" + "00000000" + "00000000" + "00000000" + "00000000" + "00000000" + "00000004" + "00000000" + "dev\x00",
		"00002180", // character device 0600
		"0000000500000001",
		"init\x00\x00hello\x00\x00\x00070701", // name and data padded to 4: 110+5 is 115, 5 is 5
		"000043FF",                            // directory, sticky
		"0000A1FF",                            // link
		"TRAILER!!!\x00",
	}
	for _, w := range want {
		if !strings.Contains(a.String(), w) {
			t.Errorf("the archive has not %q", w)
		}
	}
}

// TestListing has the kernel's own user of the format read it.
func TestListing(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("needs cpio")
	}
	var a bytes.Buffer
	if err := initramfs.Write(&a, entries()); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(cpio, "-itv", "--quiet")
	cmd.Stdin = &a
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	for _, w := range []string{"drwxr-xr-x", "crw-------", "5,   1", "-rwxr-xr-x", "sbin -> dev", "drwxrwxrwt"} {
		if !strings.Contains(string(out), w) {
			t.Errorf("cpio lists no %q:\n%s", w, out)
		}
	}
}

func TestRefused(t *testing.T) {
	tests := []struct {
		name  string
		entry initramfs.Entry
		want  string
	}{
		{"absolute", initramfs.Entry{Name: "/init"}, "clean path"},
		{"out", initramfs.Entry{Name: "../init"}, "clean path"},
		{"no name", initramfs.Entry{}, "clean path"},
		{"a NUL ends a name", initramfs.Entry{Name: "a\x00b"}, "clean path"},
		{"more than the data", initramfs.Entry{Name: "a", Data: strings.NewReader("x"), Size: 2}, "1 of 2 bytes"},
		{"no data", initramfs.Entry{Name: "a", Size: 2}, "no data"},
		{"beyond 32 bits", initramfs.Entry{Name: "a", Data: strings.NewReader(""), Size: 1 << 32}, "4 GB"},
		{"directory with data", initramfs.Entry{Name: "a", Mode: fs.ModeDir, Size: 1}, "regular"},
		{"link to nowhere", initramfs.Entry{Name: "a", Mode: fs.ModeSymlink}, "nowhere"},
		{"socket", initramfs.Entry{Name: "a", Mode: fs.ModeSocket}, "file type"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := initramfs.Write(new(bytes.Buffer), []initramfs.Entry{tt.entry})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Write = %v; want %q", err, tt.want)
			}
		})
	}
}
