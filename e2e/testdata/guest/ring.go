package main

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Of a ring of PF_PACKET (Documentation/networking/packet_mmap.rst): a slot is
// 8 bytes status, 4 bytes length, and the frame from 32 on.
const (
	slots         = 32
	slotSize      = 2048
	statusFree    = 0
	statusRequest = 1
)

func forgeRing(frame []byte, count int, to *unix.SockaddrLinklayer) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req := &unix.TpacketReq{Block_size: 4096, Block_nr: slots * slotSize / 4096, Frame_size: slotSize, Frame_nr: slots}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_TX_RING, req); err != nil {
		return fmt.Errorf("transmit ring: %w", err)
	}
	ring, err := unix.Mmap(fd, 0, slots*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(ring)
	le := binary.LittleEndian
	for sent := 0; sent < count; {
		for i := 0; i < slots && sent < count; i++ {
			slot := ring[i*slotSize:]
			if le.Uint64(slot) != statusFree {
				continue
			}
			copy(slot[32:], frame)
			le.PutUint32(slot[8:], uint32(len(frame)))
			le.PutUint64(slot, statusRequest)
			sent++
		}
		if err := unix.Sendto(fd, nil, 0, to); err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("transmit ring: %w", err)
		}
	}
	return nil
}
