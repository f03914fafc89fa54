// A frontend that has BuildKit read what the request names, whatever the Dockerfile says. With
// BuildKit's own libraries, as a hostile frontend would be made.
//
// Build arguments: `identifier` of a source, its `attrs` as a JSON object, and `resolve` to have it
// resolved alone.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/gateway/grpcclient"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/appcontext"
	digest "github.com/opencontainers/go-digest"
)

func main() {
	if err := grpcclient.RunFromEnvironment(appcontext.Context(), build); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func build(ctx context.Context, c client.Client) (*client.Result, error) {
	arguments := c.BuildOpts().Opts
	source := &pb.SourceOp{Identifier: arguments["build-arg:identifier"]}
	if attrs := arguments["build-arg:attrs"]; attrs != "" {
		if err := json.Unmarshal([]byte(attrs), &source.Attrs); err != nil {
			return nil, err
		}
	}
	if arguments["build-arg:resolve"] != "" {
		_, err := c.ResolveSourceMetadata(ctx, source, sourceresolver.Opt{})
		return client.NewResult(), err
	}
	read, err := (&pb.Op{Op: &pb.Op_Source{Source: source}}).Marshal()
	if err != nil {
		return nil, err
	}
	result, err := (&pb.Op{Inputs: []*pb.Input{{Digest: string(digest.FromBytes(read))}}}).Marshal()
	if err != nil {
		return nil, err
	}
	definition := &pb.Definition{Def: [][]byte{read, result}}
	return c.Solve(ctx, client.SolveRequest{Evaluate: true, Definition: definition})
}
