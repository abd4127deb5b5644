package linux

import (
	"strings"
	"testing"
)

// From a Linux 6.18 machine: listeners on 127.0.0.1:22, 0.0.0.0:80 (0050), an
// established connection from port 8080, [::]:443 and [::1]:25.
const procTCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0200000A:1F90 0300000A:0050 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1
`

const procTCP6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4 1 0 100 0 0 10 0
   1: 00000000000000000000000001000000:0019 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5 1 0 100 0 0 10 0
   2: 0000000000000000FFFF00000100007F:0035 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 6 1 0 100 0 0 10 0
`

func TestHasListener(t *testing.T) {
	tests := []struct {
		name     string
		table    string
		port     uint16
		loopback bool
		want     bool
	}{
		{"any address", procTCP, 80, false, true},
		{"loopback does not count", procTCP, 22, false, false},
		{"loopback counts", procTCP, 22, true, true},
		{"a connection is no listener", procTCP, 8080, true, false},
		{"nothing there", procTCP, 81, true, false},
		{"v6 any", procTCP6, 443, false, true},
		{"v6 loopback", procTCP6, 25, false, false},
		{"v6 loopback counts", procTCP6, 25, true, true},
		{"v4-mapped loopback", procTCP6, 53, false, false},
		{"garbage", "a b c 0A\nx:y z:0 1:2 0A\n0: ZZ:0050 0 0A\n", 80, true, false},
	}
	for _, tt := range tests {
		if got := hasListener(strings.NewReader(tt.table), tt.port, tt.loopback); got != tt.want {
			t.Errorf("%s: hasListener(port %d) = %t; want %t", tt.name, tt.port, got, tt.want)
		}
	}
}
