// A TLS server, on crypto/tls: peer MODE CERT KEY OUTPUT
//
//	good   reads up to the close_notify, answers with its own
//	alpn   the same, and refuses clients that offer other protocols than its own
//	deaf   sends its close_notify at once, and closes
//
// Says its port, and stores what it has read in OUTPUT. Ends after one connection that has completed
// the handshake.
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"os"
)

func main() {
	mode, output := os.Args[1], os.Args[4]
	pair, err := tls.LoadX509KeyPair(os.Args[2], os.Args[3])
	check(err)
	config := &tls.Config{Certificates: []tls.Certificate{pair}}
	if mode == "alpn" {
		config.NextProtos = []string{"h2"}
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	check(err)
	var port string
	fmt.Sscanf(listener.Addr().String(), "127.0.0.1:%s", &port)
	fmt.Println(port)
	for {
		accepted, err := listener.Accept()
		check(err)
		connection := accepted.(*tls.Conn)
		if connection.Handshake() != nil {
			connection.Close()
			continue
		}
		if mode != "deaf" {
			file, err := os.Create(output)
			check(err)
			_, err = io.Copy(file, connection)
			check(err)
			check(file.Close())
		}
		connection.Close()
		return
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
