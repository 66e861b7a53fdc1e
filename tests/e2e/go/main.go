// Command e2e runs the cases of cases.txt through amqp091-go, one line a case.
//
// `E2E_URL=amqp://… go run . [CASE …]` prints `ok NAME` or `FAIL NAME: why` and exits 1 if any failed. A case that needs a restart
// prints `restart term` or `restart kill` and waits for the line `restarted` on standard input.
package main

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

const caseLimit = 90 * time.Second

var input = bufio.NewScanner(os.Stdin)

// restart asks whoever runs us to restart the broker, and waits until it serves again.
func restart(how string) {
	fmt.Println("restart " + how)
	if !input.Scan() || input.Text() != "restarted" {
		panic(failure("nobody restarted the broker"))
	}
}

// run runs one case and returns why it failed, or "".
func run(body func(*session)) string {
	s := &session{url: os.Getenv("E2E_URL")}
	defer s.close()
	done := make(chan string, 1)
	go func() {
		defer func() {
			switch why := recover().(type) {
			case nil:
				done <- ""
			case failure:
				done <- strings.Join(strings.Fields(string(why)), " ")
			default:
				panic(why)
			}
		}()
		body(s)
	}()
	select {
	case why := <-done:
		return why
	case <-time.After(caseLimit):
		return "no end after " + caseLimit.String()
	}
}

func main() {
	names := os.Args[1:]
	failed := false
	for _, c := range cases {
		if len(names) > 0 && !slices.Contains(names, c.name) {
			continue
		}
		if why := run(c.body); why != "" {
			failed = true
			fmt.Printf("FAIL %s: %s\n", c.name, why)
		} else {
			fmt.Println("ok " + c.name)
		}
	}
	if failed {
		os.Exit(1)
	}
}
