package stack

// ServerReady is the ready line of httvps-server.
type ServerReady struct {
	Ready     bool   `json:"ready"`
	API       string `json:"api"`
	Gateway   string `json:"gateway"`
	Bootstrap string `json:"bootstrap"`
	CA        string `json:"ca"`
	Invite    string `json:"invite"`
	Token     string `json:"token"`
}

// ConnectReady is the ready line of httvps connect.
type ConnectReady struct {
	Ready    bool   `json:"ready"`
	Session  string `json:"session"`
	Gateway  string `json:"gateway"`
	Socks    string `json:"socks"`
	HTTP     string `json:"http"`
	Forwards []struct {
		Proto  string `json:"proto"`
		Listen string `json:"listen"`
		Target string `json:"target"`
	} `json:"forwards"`
}
