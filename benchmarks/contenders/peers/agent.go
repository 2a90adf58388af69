// SPDX-License-Identifier: MIT

// The agent one would write in Go: cilium/ebpf's reader, a map of the backends, client_golang.
//
//	agent RING_FD
//
// answers each "drain TABLE N", N being the events in the ring, with "N NS". Each table has
// backends of its own.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/prometheus/client_golang/prometheus"
)

const closed = 2

type key struct {
	addr  [16]byte
	port  uint16
	proxy uint16
}

type table struct {
	histograms *prometheus.HistogramVec
	backends   map[key]prometheus.Observer
}

func newTable() *table {
	return &table{
		histograms: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "lb_backend_latency_seconds",
			Help:    "Lifetime of connections.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"proxy_name", "target_ip", "target_port"}),
		backends: map[key]prometheus.Observer{},
	}
}

func (t *table) add(k key) prometheus.Observer {
	observer := t.histograms.WithLabelValues(strconv.Itoa(int(k.proxy)),
		net.IP(k.addr[:]).String(), strconv.Itoa(int(k.port)))
	t.backends[k] = observer
	return observer
}

func (t *table) handle(event []byte) {
	created := binary.LittleEndian.Uint64(event[16:])
	if len(event) != 56 || event[0] != closed || created == 0 {
		return
	}
	k := key{port: binary.LittleEndian.Uint16(event[36:]), proxy: binary.LittleEndian.Uint16(event[38:])}
	copy(k.addr[:], event[40:])
	observer, ok := t.backends[k]
	if !ok {
		observer = t.add(k)
	}
	observer.Observe(float64(binary.LittleEndian.Uint64(event[8:])-created) * 1e-9)
}

func (t *table) drain(reader *ringbuf.Reader, n int) (time.Duration, error) {
	var record ringbuf.Record
	start := time.Now()
	for i := 0; i < n; i++ {
		if err := reader.ReadInto(&record); err != nil {
			return 0, err
		}
		t.handle(record.RawSample)
	}
	return time.Since(start), nil
}

func openRing(fd string) (*ringbuf.Reader, error) {
	number, err := strconv.Atoi(fd)
	if err != nil {
		return nil, err
	}
	ring, err := ebpf.NewMapFromFD(number)
	if err != nil {
		return nil, err
	}
	return ringbuf.NewReader(ring)
}

func main() {
	var reader *ringbuf.Reader
	tables := map[string]*table{}
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		var command, name string
		var n int
		fmt.Sscan(commands.Text(), &command, &name, &n)
		if reader == nil {
			// Opened on a filled ring it never waits: who fills it wakes nobody.
			var err error
			if reader, err = openRing(os.Args[1]); err != nil {
				log.Fatal(err)
			}
		}
		if tables[name] == nil {
			tables[name] = newTable()
		}
		took, err := tables[name].drain(reader, n)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(n, took.Nanoseconds())
	}
}
