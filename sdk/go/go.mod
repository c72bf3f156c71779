module github.com/httvps/httvps/sdk/go

go 1.26

require (
	github.com/gobwas/ws v1.5.0
	github.com/google/go-cmp v0.7.0
)

require github.com/gobwas/httphead v0.1.0 // indirect
