// Both ends of what kubectl does for exec and port-forward, by the libraries of Kubernetes: client-go as the client, and the
// streaming server of container runtimes as the server. Both speak SPDY/3.1 after an upgrade of a POST.
//
//	streams serve              prints `listening HOST:PORT`
//	streams exec URL COMMAND   standard streams; ends with the command's exit status
//	streams forward URL        prints where it listens; each connection to it is one stream
//
// Commands: `cat` sends back what it reads, `count` says how many bytes it read, `fail` ends with 7. A forwarded port sends
// back what it reads.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubelet/pkg/cri/streaming"
	utilexec "k8s.io/utils/exec"
)

type commands struct{}

func (commands) Exec(_ context.Context, _ string, command []string, in io.Reader, out, errors io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	switch command[0] {
	case "cat":
		_, err := io.Copy(out, in)
		return err
	case "count":
		count, err := io.Copy(io.Discard, in)
		fmt.Fprintln(out, count)
		return err
	}
	fmt.Fprintln(errors, "failed")
	return utilexec.CodeExitError{Err: fmt.Errorf("%s failed", command[0]), Code: 7}
}

func (commands) Attach(context.Context, string, io.Reader, io.WriteCloser, io.WriteCloser, bool, <-chan remotecommand.TerminalSize) error {
	return errors.New("there is nothing to attach to")
}

func (commands) PortForward(_ context.Context, _ string, _ int32, stream io.ReadWriteCloser) error {
	_, err := io.Copy(stream, stream)
	return err
}

// serve gives each request a token, as a kubelet would, and serves it at once.
func serve() error {
	server, err := streaming.NewServer(streaming.DefaultConfig, commands{})
	if err != nil {
		return err
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		var at string
		if r.URL.Path == "/forward" {
			response, err := server.GetPortForward(&runtimeapi.PortForwardRequest{PodSandboxId: "pod", Port: []int32{80}})
			if err != nil {
				log.Fatal(err)
			}
			at = response.Url
		} else {
			request := runtimeapi.ExecRequest{ContainerId: "container", Cmd: []string{r.URL.Query().Get("command")}, Stdin: true, Stdout: true, Stderr: true}
			response, err := server.GetExec(&request)
			if err != nil {
				log.Fatal(err)
			}
			at = response.Url
		}
		target, err := url.Parse(at)
		if err != nil {
			log.Fatal(err)
		}
		r.URL.Path, r.RequestURI = target.Path, target.Path
		server.ServeHTTP(w, r)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("listening", listener.Addr())
	return http.Serve(listener, http.HandlerFunc(handler))
}

func exec(at *url.URL) error {
	executor, err := remotecommand.NewSPDYExecutor(&rest.Config{Host: at.Host}, "POST", at)
	if err != nil {
		return err
	}
	streams := remotecommand.StreamOptions{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	return executor.StreamWithContext(context.Background(), streams)
}

func forward(at *url.URL) error {
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: at.Host})
	if err != nil {
		return err
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", at)
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:80"}, make(chan struct{}), make(chan struct{}), os.Stdout, os.Stderr)
	if err != nil {
		return err
	}
	return forwarder.ForwardPorts()
}

func run(arguments []string) error {
	if arguments[0] == "serve" {
		return serve()
	}
	at, err := url.Parse(arguments[1])
	if err != nil {
		return err
	}
	if arguments[0] == "forward" {
		return forward(at)
	}
	at.RawQuery = url.Values{"command": {arguments[2]}}.Encode()
	return exec(at)
}

func main() {
	err := run(os.Args[1:])
	var exit utilexec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitStatus())
	}
	if err != nil {
		log.Fatal(err)
	}
}
