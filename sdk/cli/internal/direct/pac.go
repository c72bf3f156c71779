package direct

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
)

// PACPath is where a proxy serves the file that browsers configure themselves by.
const PACPath = "/proxy.pac"

// PAC returns that file for a proxy at address. It never falls back to a direct
// connection and resolves nothing: what it cannot judge goes to the proxy, which
// follows the same rules.
func (r *Rules) PAC(address string) []byte {
	var networks [][2]string
	domains := []string{}
	if !r.Empty() {
		domains = slices.Sorted(maps.Keys(r.domains))
		for _, p := range slices.SortedFunc(maps.Keys(r.prefixes), netip.Prefix.Compare) {
			if p.Addr().Is4() {
				networks = append(networks, [2]string{p.Addr().String(), net.IP(net.CIDRMask(p.Bits(), 32)).String()})
			}
		}
	}
	return fmt.Appendf(nil, `function FindProxyForURL(url, host) {
  var domains = %s;
  var networks = %s;
  host = host.toLowerCase().replace(/\.$/, "");
  if (/^\d+\.\d+\.\d+\.\d+$/.test(host)) {
    for (var i = 0; i < networks.length; i++) {
      if (isInNet(host, networks[i][0], networks[i][1])) return "DIRECT";
    }
  } else {
    for (var name = "." + host; name; name = name.slice(Math.max(name.indexOf(".", 1), 0) || name.length)) {
      if (domains.indexOf(name.slice(1)) >= 0) return "DIRECT";
    }
  }
  return %s;
}
`, script(domains), script(networks), script("PROXY "+address))
}

// script is v as JavaScript has it.
func script(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil || string(text) == "null" {
		return []byte("[]")
	}
	return text
}

// Page serves the PAC file of a proxy that listens at a port of this machine, or of
// all its addresses.
func (r *Rules) Page(at net.Addr) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != PACPath || req.Method != http.MethodGet && req.Method != http.MethodHead {
			http.Error(w, "This is an HTTP proxy. Enter it as such in a program's settings, or "+PACPath+" here as the address of its configuration.", http.StatusNotFound)
			return
		}
		address, ok := reached(at, req.Host)
		// A page of somebody else's may have a browser ask, under a name of its own or
		// as a script: the rules are not for it.
		if site := req.Header.Get("Sec-Fetch-Site"); !ok || site != "" && site != "none" && site != "same-origin" {
			http.Error(w, "This file is for this machine's browsers.", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/x-ns-proxy-autoconfig")
		w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(r.PAC(address))
	})
}

// reached is the address that a client has reached the proxy at, if it is one that a
// proxy there can have.
func reached(at net.Addr, host string) (string, bool) {
	tcp, ok := at.(*net.TCPAddr)
	if !ok {
		return "", false
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil || port != strconv.Itoa(tcp.Port) {
		return "", false
	}
	if name == "localhost" {
		return tcp.String(), true
	}
	addr, err := netip.ParseAddr(name)
	if err != nil || addr.Zone() != "" {
		return "", false
	}
	return net.JoinHostPort(addr.String(), port), true
}
