package main

import (
	"fmt"
	"os"
)

// write writes files below a directory, of several owners, and prints what
// becomes of each.
func write(dirs []string) error {
	for _, dir := range dirs {
		try(dir+"/new", func() error { return os.WriteFile(dir+"/new", []byte("written inside\n"), 0o640) })
		try(dir+"/owned", func() error {
			if err := os.WriteFile(dir+"/owned", nil, 0o600); err != nil {
				return err
			}
			return os.Chown(dir+"/owned", 1000, 1001)
		})
		try(dir+"/old", func() error {
			f, err := os.OpenFile(dir+"/old", os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = fmt.Fprintln(f, "appended inside")
			return err
		})
	}
	return nil
}
