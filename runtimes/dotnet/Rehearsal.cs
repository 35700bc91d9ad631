// Loading and calling a sample before there is a function: what .NET compiles and reads for the first time it does now.

using System;
using System.Collections.Generic;
using System.IO;
using System.Text;
using System.Text.Json;

namespace Dunlin
{
    static class Rehearsal
    {
        /// <summary>Ends early when the host asks for something. Whatever goes wrong here may go right with the user's code.</summary>
        public static void Run(Wire channel)
        {
            string folder = Path.Combine(AppContext.BaseDirectory, "rehearsal");
            Functions functions = new Functions(folder);
            try
            {
                foreach (Action step in Steps(functions))
                {
                    if (channel.IsAsked())
                    {
                        break;
                    }
                    step();
                }
            }
            catch (Exception)
            {
                // Calls will take longer, and say what is wrong.
            }
            functions.Close();
        }

        static IEnumerable<Action> Steps(Functions functions)
        {
            byte[] nothing = new byte[0];
            Members context = CallContext.Of(Parsed("{\"env\":{\"A\":\"\"},\"function\":{\"name\":\"f\"}}"), Parsed("{\"requestId\":\"r\"}"));
            yield return () => functions.Handler("Sample::Sample::Echo").Call(nothing, context);
            yield return () => new Logger("r").Line(2, "message", null);
            yield return () =>
            {
                Handler handler = functions.Handler("Sample::Sample::Respond");
                handler.Encoded(handler.Call(Encoding.UTF8.GetBytes("{\"name\":\"n\",\"tags\":{\"a\":[1]}}"), context));
            };
            yield return () =>
            {
                try
                {
                    functions.Handler("Sample::Sample::Fail").Call(nothing, context);
                }
                catch (Exception thrown)
                {
                    new Report(thrown).Body();
                }
            };
        }

        static JsonElement Parsed(string json)
        {
            return JsonDocument.Parse(json).RootElement;
        }
    }
}
