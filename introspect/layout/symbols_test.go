package layout_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"maps"
	"strings"
	"testing"

	"sekimori/introspect/layout"
)

// A section of an image.
type section struct {
	name string
	typ  elf.SectionType
	addr uint64
	data []byte
	link uint32
	size uint64 // of an entry
}

// image is an ELF file of sections.
func image(sections ...section) *bytes.Reader {
	all := append([]section{{}}, sections...)
	var names bytes.Buffer
	at := func(name string) uint32 {
		n := names.Len()
		names.WriteString(name + "\x00")
		return uint32(n)
	}
	var body, headers bytes.Buffer
	all = append(all, section{name: ".shstrtab", typ: elf.SHT_STRTAB})
	le := binary.LittleEndian
	for i, s := range all {
		h := elf.Section64{Name: at(s.name), Type: uint32(s.typ), Addr: s.addr, Off: uint64(64 + body.Len()), Link: s.link, Entsize: s.size}
		if i == len(all)-1 {
			s.data = names.Bytes()
		}
		h.Size = uint64(len(s.data))
		body.Write(s.data)
		binary.Write(&headers, le, h)
	}
	head := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Shoff: uint64(64 + body.Len()), Ehsize: 64, Shentsize: 64, Shnum: uint16(len(all)), Shstrndx: uint16(len(all) - 1)}
	copy(head.Ident[:], "\x7fELF\x02\x01\x01")
	var out bytes.Buffer
	binary.Write(&out, le, head)
	out.Write(body.Bytes())
	out.Write(headers.Bytes())
	return bytes.NewReader(out.Bytes())
}

// symtab is a symbol table, section 1, and its names, section 2.
func symtab(symbols map[string]uint64) []section {
	names := []byte{0}
	var table bytes.Buffer
	binary.Write(&table, binary.LittleEndian, elf.Sym64{})
	for name, value := range symbols {
		binary.Write(&table, binary.LittleEndian, elf.Sym64{Name: uint32(len(names)), Shndx: 1, Value: value})
		names = append(names, name+"\x00"...)
	}
	return []section{{".symtab", elf.SHT_SYMTAB, 0, table.Bytes(), 2, 24}, {".strtab", elf.SHT_STRTAB, 0, names, 0, 0}}
}

const (
	tableAt   = 0x6000_0000
	stringsAt = 0x6001_0000
)

// exported is a table of exports of two names.
func exported(section1 string, relative bool) []section {
	var table []byte
	le := binary.LittleEndian
	names := "init_net\x00cpu_tasks\x00"
	for i, e := range []struct{ value, name uint64 }{{0x6000_4000, stringsAt}, {0x6000_5000, stringsAt + 9}} {
		if relative {
			here := tableAt + uint64(12*i)
			table = le.AppendUint32(table, uint32(e.value-here))
			table = le.AppendUint32(table, uint32(e.name-here-4))
			table = le.AppendUint32(table, 0)
			continue
		}
		table = le.AppendUint64(le.AppendUint64(le.AppendUint64(table, e.value), e.name), 0)
	}
	return []section{{section1, elf.SHT_PROGBITS, tableAt, table, 0, 0}, {"__ksymtab_strings", elf.SHT_PROGBITS, stringsAt, []byte(names), 0, 0}}
}

func TestSymbols(t *testing.T) {
	both := map[string]uint64{"init_net": 0x6000_4000, "cpu_tasks": 0x6000_5000}
	tests := []struct {
		name     string
		sections []section
		want     map[string]uint64
	}{
		{"symbol table", symtab(map[string]uint64{"init_net": 1, "cpu_tasks": 2, "other": 3}), map[string]uint64{"init_net": 1, "cpu_tasks": 2}},
		{"exports", exported("__ksymtab", false), both},
		{"exports to modules of one licence", exported("__ksymtab_gpl", false), both},
		{"relative exports", exported("__ksymtab_gpl", true), both},
		{"symbol table before exports", append(symtab(map[string]uint64{"init_net": 1}), exported("__ksymtab", false)...), map[string]uint64{"init_net": 1, "cpu_tasks": 0x6000_5000}},
		{"none of them", symtab(map[string]uint64{"other": 3}), nil},
		{"nothing", nil, nil},
	}
	for _, tt := range tests {
		got, err := layout.Symbols(image(tt.sections...), "init_net", "cpu_tasks")
		if tt.want == nil {
			if !errors.Is(err, layout.ErrNoSymbols) {
				t.Errorf("%s: Symbols = %v, %v; want %v", tt.name, got, err, layout.ErrNoSymbols)
			}
			continue
		}
		if err != nil || !maps.Equal(got, tt.want) {
			t.Errorf("%s: Symbols = %#x, %v; want %#x", tt.name, got, err, tt.want)
		}
	}
	if _, err := layout.Symbols(strings.NewReader("no kernel"), "x"); err == nil {
		t.Error("what is no ELF file has symbols")
	}
}

func TestSymbolText(t *testing.T) {
	const text = "0000000060a21148 B cpu_tasks\n0000000060a63f40 B init_net\nffffffffc0a63f40 b init_net\t[mod]\nshort line\n0000000000000000 T hidden\n"
	got, err := layout.SymbolText(strings.NewReader(text), "cpu_tasks", "init_net", "hidden")
	if want := map[string]uint64{"cpu_tasks": 0x60a21148, "init_net": 0x60a63f40}; err != nil || !maps.Equal(got, want) {
		t.Errorf("SymbolText = %#x, %v; want %#x", got, err, want)
	}
	if _, err := layout.SymbolText(strings.NewReader(text), "hidden"); !errors.Is(err, layout.ErrNoSymbols) {
		t.Errorf("SymbolText of a hidden address = %v; want %v", err, layout.ErrNoSymbols)
	}
	if _, err := layout.SymbolText(strings.NewReader("xyz T cpu_tasks\n"), "cpu_tasks"); err == nil {
		t.Error("an address that is no number was taken")
	}
}

func FuzzSymbols(f *testing.F) {
	f.Add(exported("__ksymtab", false)[0].data, []byte("init_net\x00"))
	f.Add(exported("__ksymtab", true)[0].data, []byte("init_net\x00cpu_tasks\x00"))
	f.Fuzz(func(t *testing.T, table, names []byte) {
		got, err := layout.Symbols(image(section{"__ksymtab", elf.SHT_PROGBITS, tableAt, table, 0, 0}, section{"__ksymtab_strings", elf.SHT_PROGBITS, stringsAt, names, 0, 0}), "init_net")
		if (err == nil) != (len(got) == 1) {
			t.Errorf("Symbols = %v, %v", got, err)
		}
	})
}
