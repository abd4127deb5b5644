package layout

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// ErrNoSymbols says that an image has neither a symbol table nor the exports
// that were looked for.
var ErrNoSymbols = errors.New("kernel symbols: not in the image")

// Symbols returns the addresses of symbols of a kernel's image, an ELF file:
// from its symbol table or, where that is stripped, of those that the kernel
// exports to modules. Names that the image does not have are not in the map;
// without any of them the error is [ErrNoSymbols].
func Symbols(image io.ReaderAt, names ...string) (map[string]uint64, error) {
	f, err := elf.NewFile(image)
	if err != nil {
		return nil, fmt.Errorf("kernel symbols: %w", err)
	}
	found := make(map[string]uint64, len(names))
	all, err := f.Symbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, fmt.Errorf("kernel symbols: %w", err)
	}
	for _, s := range all {
		if s.Section != elf.SHN_UNDEF && slices.Contains(names, s.Name) {
			found[s.Name] = s.Value
		}
	}
	for _, section := range []string{"__ksymtab", "__ksymtab_gpl"} {
		if len(found) < len(names) {
			if err := exports(f, section, names, found); err != nil {
				return nil, fmt.Errorf("kernel symbols: %s: %w", section, err)
			}
		}
	}
	if len(found) == 0 {
		return nil, ErrNoSymbols
	}
	return found, nil
}

// exports adds what a table of exports has. An entry is (include/linux/export.h)
//
//	8 bytes  address            or, with relative references,
//	8 bytes  of the name        4 bytes each, added to their own
//	8 bytes  of the namespace   address
func exports(f *elf.File, name string, names []string, found map[string]uint64) error {
	section, text := f.Section(name), f.Section("__ksymtab_strings")
	if section == nil || text == nil {
		return nil
	}
	table, err := section.Data()
	if err != nil {
		return err
	}
	strs, err := text.Data()
	if err != nil {
		return err
	}
	str := func(addr uint64) string {
		off := addr - text.Addr // below it wraps, and is more than any length
		if off >= uint64(len(strs)) {
			return ""
		}
		s, _, _ := bytes.Cut(strs[off:], []byte{0})
		return string(s)
	}
	for at := 0; len(table)-at >= 24; at += 24 {
		value, ref := binary.LittleEndian.Uint64(table[at:]), binary.LittleEndian.Uint64(table[at+8:])
		if str(ref) == "" {
			return relative(table, section.Addr, str, names, found)
		}
		if n := str(ref); slices.Contains(names, n) {
			add(found, n, value)
		}
	}
	return nil
}

// relative is exports for relative references.
func relative(table []byte, base uint64, str func(uint64) string, names []string, found map[string]uint64) error {
	for at := 0; len(table)-at >= 12; at += 12 {
		here := base + uint64(at)
		value := here + uint64(int32(binary.LittleEndian.Uint32(table[at:])))
		n := str(here + 4 + uint64(int32(binary.LittleEndian.Uint32(table[at+4:]))))
		if n == "" {
			return fmt.Errorf("entry at %#x names nothing", here)
		}
		if slices.Contains(names, n) {
			add(found, n, value)
		}
	}
	return nil
}

// add keeps what the symbol table said.
func add(found map[string]uint64, name string, value uint64) {
	if _, ok := found[name]; !ok {
		found[name] = value
	}
}

// SymbolText returns the addresses of symbols out of the text of System.map or
// /proc/kallsyms: an address in hexadecimal, a letter, a name.
func SymbolText(text io.Reader, names ...string) (map[string]uint64, error) {
	found := make(map[string]uint64, len(names))
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 3 || !slices.Contains(names, f[2]) {
			continue
		}
		addr, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("kernel symbols: %s: %w", f[2], err)
		}
		if addr != 0 { // what /proc/kallsyms says to who may not know
			add(found, f[2], addr)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("kernel symbols: %w", err)
	}
	if len(found) == 0 {
		return nil, ErrNoSymbols
	}
	return found, nil
}
