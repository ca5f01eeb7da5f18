// One broadcast from Go: it is validated, created, started, watched until it is READY, and stopped.
//
//	go run . [HOST:PORT]
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	broadcastv1 "broadcast.internal/gen/broadcast/v1"
)

func main() {
	address := "127.0.0.1:50051"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	if err := run(address); err != nil {
		log.Fatal(err)
	}
}

func run(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := broadcastv1.NewBroadcastServiceClient(connection)

	// The rules of the contract, before anything is sent.
	wrong := &broadcastv1.CreateBroadcastRequest{Spec: &broadcastv1.BroadcastSpec{Layout: "Not A Layout"}}
	var invalid *protovalidate.ValidationError
	if err := protovalidate.Validate(wrong); !errors.As(err, &invalid) {
		return fmt.Errorf("the layout should be invalid: %w", err)
	}
	fmt.Println("invalid:", protovalidate.FieldPathString(invalid.Violations[0].Proto.GetField()))

	// A request_id makes a retry safe: one for each write, and the same one when that write is repeated.
	created, err := client.CreateBroadcast(ctx, &broadcastv1.CreateBroadcastRequest{
		RequestId: rand.Text(),
		Spec:      &broadcastv1.BroadcastSpec{Title: "From Go"},
	})
	if err != nil {
		return err
	}
	id := created.GetBroadcast().GetId()
	fmt.Println("created:", id)

	started, err := client.StartBroadcast(ctx, &broadcastv1.StartBroadcastRequest{
		RequestId: rand.Text(), BroadcastId: id, HostIdentity: "ann", Wait: durationpb.New(10 * time.Second),
	})
	if err != nil {
		return err
	}
	fmt.Println("host enters at:", started.GetHostAccess().GetLivekitUrl())

	watch, err := client.WatchBroadcasts(ctx, &broadcastv1.WatchBroadcastsRequest{
		Filter: &broadcastv1.BroadcastFilter{BroadcastIds: []string{id}},
	})
	if err != nil {
		return err
	}
	for {
		message, err := watch.Recv()
		if err != nil {
			return err
		}
		if state := message.GetChange().GetBroadcast().GetStatus().GetState(); message.GetChange() != nil {
			fmt.Println("state:", state)
			if state == broadcastv1.BroadcastState_BROADCAST_STATE_READY {
				break
			}
		}
	}

	stopped, err := client.StopBroadcast(ctx, &broadcastv1.StopBroadcastRequest{
		RequestId: rand.Text(), BroadcastId: id, Wait: durationpb.New(30 * time.Second),
	})
	if err != nil {
		return err
	}
	fmt.Println("stopped:", stopped.GetBroadcast().GetStatus().GetState())

	// Every error has a reason for programs.
	_, err = client.GetBroadcast(ctx, &broadcastv1.GetBroadcastRequest{BroadcastId: "nobody"})
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			fmt.Println("error:", status.Code(err), info.GetReason())
		}
	}
	return nil
}
