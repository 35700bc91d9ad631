// The .NET bootstrap: loads the user's assembly and answers calls on descriptor 3 (docs/design/wire.md).
//
// Runs as `dotnet dunlin.dll`, says Ready as soon as it could serve, then rehearses loading and calling for as long as nobody
// asks for the real thing, and serves one call at a time until the host closes the channel.
//
// What always holds:
// - A call is answered once, also when an exception in a thread of the user's is about to end the process.
// - What was printed is in the pipe before an answer is written: the host has a call's output before its answer.
// - The user's assemblies are in a context of their own: nothing they bring replaces what this bootstrap stands on.

using System;
using System.Collections;
using System.IO;
using System.Runtime.Loader;
using System.Text.Json;

namespace Dunlin
{
    static class Program
    {
        const int ResultMax = 32 << 20;
        /// <summary>As a process that was aborted.</summary>
        const int Unhandled = 134;
        static readonly byte[] Nothing = new byte[0];

        static readonly Wire Channel = new Wire();
        static Functions functions;
        static Handler handler;
        static JsonElement load;

        static void Main()
        {
            AppDomain.CurrentDomain.UnhandledException += (sender, thrown) => EndWith(thrown.ExceptionObject as Exception);
            Channel.Ready("dotnet " + Environment.Version);
            Rehearsal.Run(Channel);
            for (Request request; (request = Channel.Next()) != null;)
            {
                try
                {
                    Serve(request);
                }
                catch (Exception thrown)
                {
                    Report report = new Report(thrown);
                    report.Print();
                    Fail(report, "");
                }
            }
            // Threads of the user's may still run.
            Environment.Exit(0);
        }

        static void Serve(Request request)
        {
            JsonElement head = JsonDocument.Parse(request.Head).RootElement;
            switch (request.Exchange.Kind)
            {
                case Kind.Load:
                    load = head;
                    Surroundings.Become(load);
                    functions = new Functions(Json.Text(load, "codePath"));
                    handler = functions.Handler(Json.Text(load, "handler"));
                    Succeed(Nothing);
                    break;
                case Kind.Invoke:
                    Invoke(request.Body, head);
                    break;
                default:
                    string name = Json.Text(load, request.Exchange.Kind == Kind.Init ? "initializer" : "preStop");
                    functions.Hook(name).Call(Nothing, CallContext.Of(load, head));
                    Succeed(Nothing);
                    break;
            }
        }

        static void Invoke(byte[] payload, JsonElement head)
        {
            object result = handler.Call(payload, CallContext.Of(load, head));
            Stream stream = result as Stream;
            if (stream != null && stream.CanSeek)
            {
                // What a handler has written into a stream is its answer from the beginning.
                stream.Position = 0;
            }
            if (stream != null && !(stream is MemoryStream))
            {
                using (stream)
                {
                    Channel.SendParts(stream);
                }
                Succeed(Nothing);
                return;
            }
            byte[] bytes = handler.Encoded(result);
            if (bytes.Length > ResultMax)
            {
                string message = "The result is " + bytes.Length + " bytes, more than the limit of " + ResultMax + " bytes";
                throw new Failure("FunctionError", message);
            }
            Succeed(bytes);
        }

        static void Succeed(byte[] result)
        {
            Surroundings.Flush();
            Channel.Answer(Kind.End, "", result);
        }

        static void Fail(Report report, string more)
        {
            Surroundings.Flush();
            Exchange current = Channel.Current;
            string type = current != null && current.Kind == Kind.Init ? "InitializationError" : "UnhandledInvocationError";
            Channel.Answer(Kind.Error, "{\"errorType\":\"" + type + "\"" + more + "}", report.Body());
        }

        /// <summary>
        /// Nothing has caught this. .NET itself would tell the log after the caller has been told, when nobody reads it any more.
        /// </summary>
        static void EndWith(Exception thrown)
        {
            Report report = new Report(thrown ?? new Exception("an object that is no exception was thrown"));
            report.Print();
            Fail(report, ",\"fatal\":true");
            Environment.Exit(Unhandled);
        }
    }

    /// <summary>What user code finds around it: environment, working directory, output.</summary>
    static class Surroundings
    {
        /// <summary>Makes the process look as the function's own.</summary>
        public static void Become(JsonElement load)
        {
            foreach (DictionaryEntry variable in Environment.GetEnvironmentVariables())
            {
                Environment.SetEnvironmentVariable((string)variable.Key, null);
            }
            JsonElement environment;
            if (Json.Has(load, "env", out environment))
            {
                foreach (JsonProperty variable in environment.EnumerateObject())
                {
                    Environment.SetEnvironmentVariable(variable.Name, variable.Value.GetString());
                }
            }
            // The zone may have been looked up before there was a function.
            TimeZoneInfo.ClearCachedData();
            Directory.SetCurrentDirectory(Json.Text(load, "codePath"));
        }

        /// <summary>Puts everything printed so far into the pipe.</summary>
        public static void Flush()
        {
            foreach (TextWriter writer in new[] { Console.Out, Console.Error })
            {
                try
                {
                    writer.Flush();
                }
                catch (Exception)
                {
                    // The user's own writer: nothing of ours is lost.
                }
            }
        }
    }
}
