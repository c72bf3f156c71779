package apidiff

import (
	"strings"
	"testing"
)

const base = `{"paths":{"/a":{"post":{"operationId":"make","security":[{"operator":[]}],
"parameters":[{"in":"query","name":"q","schema":{"type":"string","maxLength":10}}],
"requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/In"}}}},
"responses":{"201":{"headers":{"H":{}},"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Out"}}}}}}}},
"components":{"securitySchemes":{"operator":{"type":"http","scheme":"bearer"},"device":{"type":"http","scheme":"bearer"}},"schemas":{
"In":{"type":"object","additionalProperties":false,"required":["name"],"properties":{
"name":{"type":"string","minLength":1,"maxLength":100,"pattern":"^[a-z]*$"},"n":{"type":"integer","minimum":1,"maximum":9},
"state":{"type":"string","enum":["on","off"]},"maybe":{"type":["string","null"]},"list":{"type":"array","maxItems":5,"items":{"type":"string","maxLength":3}}}},
"Out":{"type":"object","additionalProperties":false,"required":["id"],"properties":{"id":{"type":"string"},
"at":{"type":"string","format":"date-time"},"state":{"type":"string","enum":["on","off"]},"inner":{"$ref":"#/components/schemas/Inner"}}},
"Inner":{"type":"object","properties":{"x":{"type":"integer"},"inner":{"$ref":"#/components/schemas/Inner"}}}}}}`

func TestWhatBreaksClientsIsFound(t *testing.T) {
	for name, tc := range map[string]struct {
		old, new string
		want     string // empty: nothing breaks
	}{
		"nothing":                            {"", "", ""},
		"a path is gone":                     {`"/a"`, `"/b"`, "POST /a: is gone"},
		"a method is gone":                   {`"post"`, `"put"`, "POST /a: is gone"},
		"another operation id":               {`"make"`, `"create"`, "operation id make is now create"},
		"another credential":                 {`[{"operator":[]}]`, `[{"device":[]}]`, "asks for another credential"},
		"no credential":                      {`[{"operator":[]}]`, `[]`, "asks for another credential"},
		"a credential of another type":       {`"operator":{"type":"http"`, `"operator":{"type":"apiKey"`, "asks for another credential"},
		"one more credential will do":        {`[{"operator":[]}]`, `[{"operator":[]},{"device":[]}]`, "asks for another credential"},
		"a parameter is gone":                {`"name":"q"`, `"name":"r"`, "query q is gone"},
		"a parameter is required":            {`"in":"query","name":"q"`, `"in":"query","name":"q","required":true`, "query q is required now"},
		"a new parameter":                    {`"parameters":[`, `"parameters":[{"in":"query","name":"r","schema":{"type":"string"}},`, ""},
		"a new required parameter":           {`"parameters":[`, `"parameters":[{"in":"query","name":"r","required":true},`, "query r is required now"},
		"a shorter parameter":                {`"maxLength":10}`, `"maxLength":9}`, "maxLength 10 is now 9"},
		"the body is required":               {`"requestBody":{`, `"requestBody":{"required":true,`, "a body is required now"},
		"no body any more":                   {`"requestBody"`, `"was"`, "takes no body any more"},
		"another media type":                 {`"requestBody":{"content":{"application/json"`, `"requestBody":{"content":{"text/json"`, "application/json is gone"},
		"a status is gone":                   {`"201"`, `"200"`, "POST /a 201: is gone"},
		"a header is gone":                   {`"H"`, `"I"`, "header H is gone"},
		"a member of requests is gone":       {`"n":`, `"m":`, ".n: is gone"},
		"a new member of requests":           {`"n":`, `"m":{"type":"string"},"n":`, ""},
		"a new required member":              {`["name"]`, `["name","n"]`, ".n: is required now"},
		"a member is optional":               {`["name"]`, `[]`, ""},
		"a higher minimum":                   {`"minimum":1`, `"minimum":2`, "minimum 1 is now 2"},
		"a lower minimum":                    {`"minimum":1`, `"minimum":0`, ""},
		"a lower maximum":                    {`"maximum":9`, `"maximum":8`, "maximum 9 is now 8"},
		"a higher maximum":                   {`"maximum":9`, `"maximum":10`, ""},
		"no maximum":                         {`,"maximum":9`, ``, ""},
		"a new bound":                        {`["string","null"]`, `["string","null"],"maxLength":7`, "maxLength is now 7"},
		"a longer text at least":             {`"minLength":1`, `"minLength":2`, "minLength 1 is now 2"},
		"fewer items":                        {`"maxItems":5`, `"maxItems":4`, "maxItems 5 is now 4"},
		"shorter items":                      {`"maxLength":3`, `"maxLength":2`, "list[]: maxLength 3 is now 2"},
		"another pattern":                    {`^[a-z]*$`, `^[a-y]*$`, "pattern"},
		"no pattern":                         {`,"pattern":"^[a-z]*$"`, ``, ""},
		"a value that requests lose":         {`"state":{"type":"string","enum":["on","off"]},"maybe"`, `"state":{"type":"string","enum":["on"]},"maybe"`, "off is not taken any more"},
		"a value that requests gain":         {`"state":{"type":"string","enum":["on","off"]},"maybe"`, `"state":{"type":"string","enum":["on","off","x"]},"maybe"`, ""},
		"a value that answers lose":          {`"state":{"type":"string","enum":["on","off"]},"inner"`, `"state":{"type":"string","enum":["on"]},"inner"`, ""},
		"a value that answers gain":          {`"state":{"type":"string","enum":["on","off"]},"inner"`, `"state":{"type":"string","enum":["on","off","x"]},"inner"`, "x is a new value"},
		"another type of a request's":        {`"n":{"type":"integer"`, `"n":{"type":"string"`, "type [integer] is now [string]"},
		"a wider type of a request's":        {`"n":{"type":"integer"`, `"n":{"type":"number"`, ""},
		"null is not taken any more":         {`["string","null"]`, `"string"`, "type [string null] is now [string]"},
		"another type of an answer's":        {`"x":{"type":"integer"}`, `"x":{"type":"string"}`, ".inner.x: type [integer] is now [string]"},
		"a wider type of an answer's":        {`"x":{"type":"integer"}`, `"x":{"type":"number"}`, "type [integer] is now [number]"},
		"an answer's member may be null":     {`"id":{"type":"string"}`, `"id":{"type":["string","null"]}`, "type [string] is now [string null]"},
		"an answer's member may be absent":   {`["id"]`, `[]`, ".id: may be absent now"},
		"an answer's member is always there": {`["id"]`, `["id","at"]`, ""},
		"an answer's member is gone":         {`"id":`, `"key":`, ".id: is gone"},
		"a new member of answers":            {`"id":{"type":"string"}`, `"id":{"type":"string"},"b":{"type":"string"}`, ""},
		"another format":                     {`"date-time"`, `"date"`, `format "date-time" is now "date"`},
		"a new path":                         {`"paths":{`, `"paths":{"/b":{"get":{"operationId":"b"}},`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			after := strings.Replace(base, tc.old, tc.new, 1)
			if tc.old != tc.new && after == base {
				t.Fatal("nothing was changed")
			}
			found, err := Breaking([]byte(base), []byte(after))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(found, "\n"); (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
				t.Errorf("found %q, want %q", got, tc.want)
			}
		})
	}
	if _, err := Breaking([]byte("{"), []byte(base)); err == nil {
		t.Error("half a document is compared")
	}
	if _, err := Breaking([]byte(base), []byte(strings.Replace(base, `"enum"`, `"oneOf"`, 1))); err == nil {
		t.Error("what the package does not know is passed over")
	}
}
