// Servers that credentials come from, one binary: the first argument says which to be, the second where to listen. Each prints a line
// of JSON once it can be asked, with what its client needs. Built and run by the tests; never shipped.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	servers := map[string]func(address string, more []string) (http.Handler, map[string]string, error){
		"vault": vaultServer,
		"oauth": oauthServer,
	}
	if len(os.Args) < 3 || servers[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: servers vault HOST:PORT | servers oauth HOST:PORT CALLERS-PUBLIC-KEY.pem")
		os.Exit(2)
	}
	listener, err := net.Listen("tcp", os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	handler, told, err := servers[os.Args[1]](listener.Addr().String(), os.Args[3:])
	if err != nil {
		log.Fatal(err)
	}
	told["url"] = "http://" + listener.Addr().String() + "/"
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, handler))
}
