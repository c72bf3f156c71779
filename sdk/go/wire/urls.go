package wire

// parseURLs reads a list of URLs, as far as their form goes.
func parseURLs(list []byte) ([]string, error) {
	var urls []string
	for len(list) > 0 {
		length, n, err := ConsumeVarint(list)
		if err != nil {
			return nil, err
		}
		list = list[n:]
		switch {
		case len(urls) == MaxURLs:
			return nil, malformed("more than 8")
		case length > uint64(len(list)):
			return nil, malformed("URL cut off")
		case !isURL(string(list[:min(length, MaxURL+1)])):
			return nil, malformed("a URL is not 1 to 500 bytes of visible ASCII")
		}
		urls = append(urls, string(list[:length]))
		list = list[length:]
	}
	return urls, nil
}

func isURL(url string) bool {
	for i := range len(url) {
		if url[i] <= ' ' || url[i] > '~' {
			return false
		}
	}
	return url != "" && len(url) <= MaxURL
}

// appendURLs appends a TLV with those of the URLs that a peer takes, if there are any.
func appendURLs(dst []byte, key uint64, urls []string) []byte {
	var list []byte
	told := 0
	for _, url := range urls {
		if told == MaxURLs || !isURL(url) {
			continue
		}
		told++
		list = append(AppendVarint(list, uint64(len(url))), url...)
	}
	if told == 0 {
		return dst
	}
	return appendTLV(dst, key, list)
}
