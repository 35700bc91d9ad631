using System;
using System.Collections.Generic;
using System.Text.Json;

namespace Example
{
    public class Response
    {
        public int StatusCode { get; set; }
        public Dictionary<string, string> Headers { get; set; }
        public string Body { get; set; }
    }

    /// <summary>Answers a call through a function URL, the API or the command line.</summary>
    public class Hello
    {
        public Response Handle(string input)
        {
            Console.WriteLine("called with {0} characters", input.Length);
            string name = input == "" ? "world" : input;
            JsonElement parameters, given;
            if (input.StartsWith("{") && JsonDocument.Parse(input).RootElement.TryGetProperty("queryParameters", out parameters))
            {
                name = parameters.TryGetProperty("name", out given) ? given.GetString() : "world";
            }
            var headers = new Dictionary<string, string> { { "content-type", "text/plain" } };
            return new Response { StatusCode = 200, Headers = headers, Body = "hello " + name + " from .NET\n" };
        }
    }
}
